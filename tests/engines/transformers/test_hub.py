"""Loading by hub id, from a real HTTP server that speaks as much of the hub's protocol as a download needs."""

import hashlib
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lengthwise.engines.transformers import ModelOptions
from lengthwise.engines.transformers.loading import load_model
from lengthwise.errors import ModelError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """One repository, owner/tiny, whose files lie in `folder`; `asked` lists the files that were fetched."""

    folder: Path
    asked: list[str]

    def do_GET(self):
        self._answer(has_body=True)

    def do_HEAD(self):
        self._answer(has_body=False)

    def log_message(self, *args):
        pass

    def _answer(self, has_body):
        name = self.path.split("?")[0].removeprefix(f"/owner/tiny/resolve/{COMMIT}/")
        if self.path.startswith("/api/models/owner/tiny/revision/main"):
            siblings = [{"rfilename": file.name} for file in self.folder.iterdir()]
            self._send_json({"id": "owner/tiny", "sha": COMMIT, "siblings": siblings}, has_body)
        elif self.path.startswith(f"/api/models/owner/tiny/tree/{COMMIT}"):
            self._send_json([_entry(file) for file in self.folder.iterdir()], has_body)
        elif self.path.startswith("/api/models/owner/tiny/"):
            self._fail("RevisionNotFound")
        elif (self.folder / name).is_file():
            if has_body:
                self.asked.append(name)
            self._send((self.folder / name).read_bytes(), has_body)
        else:
            self._fail("RepoNotFound")

    def _send_json(self, content, has_body):
        self._send(json.dumps(content).encode(), has_body)

    def _send(self, body, has_body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if has_body:
            self.wfile.write(body)

    def _fail(self, code):
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _entry(file):
    return {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": file.name}


@pytest.fixture
def hub(tiny_llama_dir, tmp_path, monkeypatch):
    """The running server's handler class; its repository is a copy that a test may spoil."""
    handler = type("TinyHub", (Hub,), {"folder": shutil.copytree(tiny_llama_dir, tmp_path / "repo"), "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        f"http://127.0.0.1:{server.server_port}" + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    yield handler
    server.shutdown()
    server.server_close()


def load(name, **options):
    return load_model(ModelOptions(model=name, **options))


def test_a_model_of_the_hub_is_the_model_of_a_folder(hub, tiny_llama_dir):
    """The same identity; weights come last, and what nobody reads is not fetched."""
    (hub.folder / "pytorch_model.bin").write_bytes(b"large")
    (hub.folder / "consolidated.safetensors").write_bytes(b"large")
    assert load("owner/tiny").identity == load(str(tiny_llama_dir)).identity
    assert hub.asked[-1] == "model.safetensors"
    assert not {"pytorch_model.bin", "consolidated.safetensors"} & set(hub.asked)


def test_a_wrong_model_is_refused_before_its_weights_are_fetched(hub):
    """Here: no tokenizer."""
    (hub.folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        load("owner/tiny")
    assert "model.safetensors" not in hub.asked


def test_pickle_weights_on_the_hub_are_refused(hub):
    """They are not even fetched."""
    (hub.folder / "model.safetensors").rename(hub.folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickle weights .* are not used"):
        load("owner/tiny")
    assert "pytorch_model.bin" not in hub.asked


@pytest.mark.parametrize(
    ("name", "revision", "says"),
    [("owner/other", None, "the hub has no model of that name"), ("owner/tiny", "v9", "no revision 'v9'")],
)
def test_what_the_hub_does_not_have_is_said(hub, name, revision, says):
    """A name, a revision."""
    with pytest.raises(ModelError, match=says):
        load(name, revision=revision)
