"""The engine on a real server: `transformers serve` with the bundled model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from lengthwise import bundled
from lengthwise.engines.openai import ServerOptions, open_openai
from lengthwise.engines.openai.engine import OpenAIEngine
from lengthwise.engines.transformers import ModelOptions, RunOptions, open_engine
from lengthwise.errors import ModelError
from lengthwise.pipeline import Pipeline
from lengthwise.types import Request
from tests.engines.openai.runs import run
from tests.engines.openai.server import free_port

MODEL = str(bundled.MODEL_DIR)
READY_S = 120.0


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a server with the bundled model, ready to answer."""
    pytest.importorskip("uvicorn")
    port, folder = free_port(), tmp_path_factory.mktemp("serve")
    # Continuous batching, as anybody would run it; it is told its size, which takes it a minute to find.
    sizes = ["--cb-num-blocks", "64", "--cb-block-size", "32", "--cb-max-batch-tokens", "64"]
    command = [Path(sys.executable).with_name("transformers"), "serve", MODEL, "--device", "cpu", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [*command, "--continuous-batching", *sizes], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _wait_for(f"http://localhost:{port}/health", process, folder / "log")
        yield f"http://localhost:{port}/v1"
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + READY_S
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            if httpx2.get(url).status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.1)
    pytest.fail(f"The server did not come up: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def engine(server_url: str) -> Iterator[OpenAIEngine]:
    opened = open_openai(ServerOptions((server_url,), model=MODEL, concurrency=4, max_tokens=48))
    yield opened
    opened.close()


def asked() -> list[Request]:
    prompts = (json.loads(line)["prompt"] for line in bundled.PROMPTS_FILE.read_text().splitlines()[:5])
    chat = [Request(f"chat {num}", prompt) for num, prompt in enumerate(prompts)]
    return [*chat, Request("raw", "Here are three tips", is_raw=True), Request("short", "Name a fruit.", max_tokens=1)]


def test_it_answers_as_our_own_engine_does(engine: OpenAIEngine) -> None:
    """Greedy answers, chat and raw, have the same text, the same number of tokens and the same prompt."""
    served = run(engine, asked())
    with Pipeline(engine=open_engine(ModelOptions(), RunOptions(max_tokens=48, batch_size=4))) as pipeline:
        own = {answer.id: answer for answer in pipeline.run(asked())}
    for name, answer in served.items():
        assert answer.error is None
        assert (answer.text, answer.completion_tokens, answer.prompt_tokens) == (
            own[name].text,
            own[name].completion_tokens,
            own[name].prompt_tokens,
        )


def test_its_model_is_asked_as_one_that_is_loaded_here(engine: OpenAIEngine) -> None:
    """A backbone behind the server answers what one of our own does."""
    requests = [request for request in asked() if request.id != "short"]
    own = open_engine(ModelOptions(), RunOptions(batch_size=4)).backbone()
    assert engine.backbone().ask(requests, 12) == own.ask(requests, 12)


def test_a_field_that_it_does_not_know_is_an_error_row(engine: OpenAIEngine) -> None:
    """The server's own sentence; the other request is answered."""
    bad = Request("bad", "Hi", api_fields={"no_such_field": 1})
    found = run(engine, [bad, Request("good", "Hi", max_tokens=2)])
    assert found["bad"].error is not None
    assert "no_such_field" in found["bad"].error.message
    assert found["good"].error is None


def test_another_model_is_refused(server_url: str) -> None:
    """Before any work."""
    with pytest.raises(ModelError, match="can't answer with 'other/model'"):
        open_openai(ServerOptions((server_url,), model="other/model"))
