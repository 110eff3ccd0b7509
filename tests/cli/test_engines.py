"""Which engine answers, by the command line; and `lengthwise run` with servers that are there, move and fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lengthwise.cli import main
from lengthwise.cli.engines import AskedOfServers, asked_for, choose_engine, open_engine
from lengthwise.engines.openai.engine import OpenAIEngine
from lengthwise.engines.transformers import ModelOptions, RunOptions
from lengthwise.engines.transformers.at_hand import find_at_hand
from lengthwise.engines.transformers.loading import identify_model
from lengthwise.errors import ModelError, UsageError
from tests.engines.openai.server import Reply, ScriptedServer, answer, free_port, refusal

URL = "http://localhost:8000/v1"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_the_bundled_model_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--model bundled` is what no --model is, to the loader, to the journal, and where only its tokens are counted; a
    folder of that name is a folder, and to servers it is a name like others."""
    monkeypatch.chdir(tmp_path)
    named, unnamed = ModelOptions("bundled"), ModelOptions()
    assert identify_model(named) == identify_model(unnamed)
    here = find_at_hand(named)
    assert here is not None
    assert here.identity == identify_model(unnamed)
    run = RunOptions()
    assert asked_for(choose_engine("transformers", named, run, AskedOfServers())) == asked_for(
        choose_engine("transformers", unnamed, run, AskedOfServers())
    )
    served = choose_engine("openai", named, run, AskedOfServers([URL]))
    assert served.server is not None
    assert served.server.model == "bundled"
    (tmp_path / "bundled").mkdir()
    with pytest.raises(ModelError, match="bundled"):
        identify_model(named)
    assert str(tmp_path) in asked_for(choose_engine("transformers", named, run, AskedOfServers()))


def test_options_become_the_engines_own() -> None:
    """Every option of the command line reaches the servers' options; the model and the limit are the common ones."""
    asked = AskedOfServers([URL, "http://other/v1"], "MY_KEY", 12, "lower", 30.0, "max_completion_tokens")
    server = choose_engine("openai", ModelOptions(model="m"), RunOptions(max_tokens=99), asked).server
    assert server is not None
    assert (server.base_urls, server.model, server.api_key_env) == ((URL, "http://other/v1"), "m", "MY_KEY")
    assert (server.concurrency, server.priority, server.timeout_s) == (12, "lower", 30.0)
    assert (server.max_tokens, server.max_tokens_field) == (99, "max_completion_tokens")


@pytest.mark.parametrize(
    ("kind", "model", "run", "asked", "said"),
    [
        ("transformers", {}, {}, {"base_url": [URL]}, "--base-url is .* add --engine openai"),
        ("transformers", {}, {}, {"concurrency": 3}, "--concurrency is .* add --engine openai"),
        ("openai", {}, {}, {}, "give --base-url"),
        ("openai", {"dtype": "float16"}, {}, {"base_url": [URL]}, "--dtype is .* loads none"),
        ("openai", {"chat_template": "vicuna"}, {}, {"base_url": [URL]}, "--chat-template is"),
        ("openai", {"trust_remote_code": True}, {}, {"base_url": [URL]}, "--trust-remote-code is"),
        ("openai", {}, {"batch_size": 8}, {"base_url": [URL]}, "--batch-size is .*--concurrency"),
    ],
)
def test_options_that_contradict_each_other_are_refused(kind, model, run, asked, said) -> None:
    """None is passed over in silence; the sentence names the option and a way out."""
    with pytest.raises(UsageError, match=said):
        choose_engine(kind, ModelOptions(**model), RunOptions(**run), AskedOfServers(**asked))


def test_a_served_model_is_known_by_its_name() -> None:
    """The URL may change between a run and its resume, the name may not; it is never a model that is loaded here."""
    here, there = (
        asked_for(choose_engine("openai", ModelOptions(model="m"), RunOptions(), AskedOfServers([url])))
        for url in (URL, "https://elsewhere/v1")
    )
    other = choose_engine("openai", ModelOptions(model="n"), RunOptions(), AskedOfServers([URL]))
    assert here == there != asked_for(other)
    assert here != asked_for(choose_engine("transformers", ModelOptions("m"), RunOptions(), AskedOfServers()))


def test_it_opens_what_was_chosen() -> None:
    """An engine for the server, without torch."""
    with ScriptedServer() as server:
        engine = open_engine(choose_engine("openai", ModelOptions(), RunOptions(), AskedOfServers([server.url])))
        assert isinstance(engine, OpenAIEngine)
        assert engine.model == "served:toy"
        engine.close()


def run(prompts: Path, answers: Path, *urls: str, **options: Any) -> int:
    arguments = ["run", prompts, "-o", answers, "--engine", "openai", "--concurrency", 4]
    arguments += [part for url in urls for part in ("--base-url", url)]
    arguments += [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    return main([str(argument) for argument in arguments])


def test_a_file_is_answered_by_a_server(prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Answers in order with the server's counts; a bad request is its row's error and exit code 1."""
    answers = tmp_path / "answers.jsonl"
    with ScriptedServer(
        lambda call: refusal(400, "Not that one") if call.prompt == "Prompt r3" else answer(call)
    ) as server:
        assert run(prompts, answers, server.url) == 1
    rows = read(answers)
    assert [row["id"] for row in rows] == [f"r{i}" for i in range(30)]
    assert "Not that one" in rows[3]["error"]["message"]
    assert all(row["usage"]["prompt_tokens"] == 2 for row in rows if row["finish_reason"] != "error")
    assert "30 rows, 1 of them failed" in capsys.readouterr().err


def test_a_job_goes_on_with_a_server_elsewhere(
    prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The key is taken back in the middle: exit code 1, no answers file; the same job goes on at another address, and
    no row is asked for twice that was answered."""
    answers = tmp_path / "answers.jsonl"
    with ScriptedServer(lambda call: refusal(401, "Expired") if call.number > 10 else answer(call)) as server:
        assert run(prompts, answers, server.url) == 1
    assert "goes on with the rest" in capsys.readouterr().err
    assert not answers.exists()
    with ScriptedServer() as other:
        assert run(prompts, answers, other.url) == 0
        assert len(other.calls) == 20
    assert [row["id"] for row in read(answers)] == [f"r{i}" for i in range(30)]


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ({"models": ["other"], "script": lambda call: Reply(404, {"detail": "No such model"})}, "it serves 'other'"),
        ({"models": [], "script": lambda call: Reply(200, b"<html>Hello</html>")}, "no OpenAI-compatible API"),
        ({"models": [], "script": lambda call: refusal(401, "Who are you?")}, "Who are you?"),
    ],
)
def test_what_is_wrong_with_a_server_is_one_sentence_and_code_2(prompts, tmp_path, capsys, server, said) -> None:
    """Another model, no API, no key: nothing is begun."""
    with ScriptedServer(**server) as wrong:
        assert run(prompts, tmp_path / "answers.jsonl", wrong.url, model="toy") == 2
    assert said in capsys.readouterr().err


def test_nobody_there_is_code_2(prompts, tmp_path, capsys) -> None:
    """The address and what to check."""
    assert run(prompts, tmp_path / "answers.jsonl", f"http://127.0.0.1:{free_port()}/v1", model="toy") == 2
    assert "Is the server running" in capsys.readouterr().err


def test_several_servers_may_stand_behind_one_option(prompts, tmp_path) -> None:
    """`--base-url A B` is both, and nothing else of the command line is touched."""
    answers = tmp_path / "answers.jsonl"
    with ScriptedServer() as one, ScriptedServer() as other:
        start = ["run", str(prompts), "-o", str(answers), "--engine", "openai", "--base-url", one.url, other.url]
        assert main([*start, "--model", "toy", "--concurrency", "4", "--quiet"]) == 0
        assert len(one.calls) + len(other.calls) == 30
        assert one.calls
        assert other.calls
    assert len(read(answers)) == 30
