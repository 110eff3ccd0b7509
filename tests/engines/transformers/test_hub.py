"""Loading by hub id, from a real HTTP server that speaks as much of the hub's protocol as a download needs."""

import hashlib
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
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


ENCODER = {"model_type": "bert", "architectures": ["BertForMaskedLM"]}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "BertForMaskedLM"),
        ({"chat_template": "/nowhere"}, "can't be read"),
        ({"adapter": "./nowhere"}, "does not exist"),
        ({"quantization": "4bit"}, "bitsandbytes"),
        ({"context_tokens": 257}, "257"),
    ],
)
def test_what_is_wrong_beside_the_weights_is_found_before_they_are_fetched(hub, options, says, monkeypatch):
    """The kind of model, the template, the adapter, what an option needs."""
    monkeypatch.setattr("lengthwise.engines.transformers.loading.find_spec", lambda name: None)
    if not options:
        config = hub.folder / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), **ENCODER}))
    with pytest.raises(ModelError, match=says):
        load("owner/tiny", **options)
    assert "model.safetensors" not in hub.asked


def test_where_the_hub_has_one_file_and_shards_the_one_is_fetched(hub, tiny_llama_dir):
    """As a folder with both is read."""
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00001.safetensors"}}
    (hub.folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (hub.folder / "model-00001-of-00001.safetensors").write_bytes(b"large")
    assert load("owner/tiny").identity == load(str(tiny_llama_dir)).identity
    assert "model-00001-of-00001.safetensors" not in hub.asked


def test_sharded_weights_are_fetched(hub, make_model_dir, caplog):
    """All files that the index names, and the hub's library warns of nothing."""
    hub.folder = make_model_dir("llama", save={"max_shard_size": "20KB"})
    assert load("owner/tiny").identity == load(str(hub.folder)).identity
    assert not caplog.records


@pytest.mark.parametrize("is_listed", [True, False])
def test_a_cache_without_the_weights_and_no_hub_are_told(hub, tmp_path, monkeypatch, is_listed):
    """Somebody used the tokenizer once, and now the network is gone; the cache may know what the hub has, or not."""
    huggingface_hub.snapshot_download("owner/tiny", allow_patterns=["*.json"])
    if not is_listed:
        shutil.rmtree(tmp_path / "hub" / "models--owner--tiny" / "trees")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{filename}")
    with pytest.raises(ModelError, match=r"weights.*not in .* cache.*can't be reached.*connect to the network"):
        load("owner/tiny")


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
