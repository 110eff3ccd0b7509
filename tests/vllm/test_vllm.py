"""Against a real vLLM server with the bundled model (`make test-vllm`)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lengthwise.bundled import PROMPTS_FILE
from lengthwise.engines.openai import ServerOptions, open_openai
from lengthwise.engines.openai.engine import OpenAIEngine
from lengthwise.learning.importing import LeftOut, LengthRow, import_lengths
from lengthwise.pipeline import Pipeline
from lengthwise.types import Completion, Finished, Request
from tests.vllm.server import NAME, Server

pytestmark = pytest.mark.vllm

MIN_SHARE_SAME = 0.95  # other kernels may decide a tie between two tokens otherwise; 30 of 30 on the machine tried


@pytest.fixture
def engine(server: Server) -> Iterator[OpenAIEngine]:
    options = ServerOptions((server.base_url,), model=NAME, concurrency=8, priority="lower")
    opened = open_openai(options)
    yield opened
    opened.close()


def prompts(num: int) -> list[str]:
    with PROMPTS_FILE.open(encoding="utf-8") as lines:
        return [json.loads(line)["prompt"] for line, _ in zip(lines, range(num), strict=False)]


def requests(num: int, max_tokens: int = 80) -> list[Request]:
    """Half of them chat, half continued as they are."""
    return [
        Request(f"r{index}", prompt, max_tokens=max_tokens, is_raw=index % 2 == 1)
        for index, prompt in enumerate(prompts(num))
    ]


def of_fixed_length(name: str, num_tokens: int) -> Request:
    """Left to itself, the answer has 18 tokens."""
    return Request(name, "Is it cold today?", max_tokens=num_tokens, api_fields={"ignore_eos": True})


def comparable(answer: Completion) -> tuple[Any, ...]:
    return answer.text, answer.finish_reason, answer.prompt_tokens, answer.completion_tokens


def test_answers_are_those_of_our_own_engine(engine: OpenAIEngine) -> None:
    """Chat and completions through HTTP: the same greedy texts, reasons and token counts as `transformers` gives, but
    for ties."""
    asked = requests(30)
    served = Pipeline(engine=engine).run(asked)
    with Pipeline() as own:
        expected = own.run(asked)
    assert [answer.error for answer in served] == [None] * len(asked)
    num_same = sum(comparable(a) == comparable(b) for a, b in zip(served, expected, strict=True))
    print(f"{num_same} of {len(asked)} answers are the same")
    assert num_same >= MIN_SHARE_SAME * len(asked)


def test_higher_priority_is_sooner(engine: OpenAIEngine) -> None:
    """While both rows are taken, what waits in the server starts by our priority, the highest first."""
    for name in ("long 1", "long 2"):
        engine.start(of_fixed_length(name, 300), (), 300, 0.0)
    _wait_for_work(engine)
    for priority in (0, 3, 1, 5, 2, 4):
        engine.start(of_fixed_length(f"p{priority}", 40), (), 40, float(priority))
    ended = [event.id for event in _until_idle(engine, 8)]
    assert set(ended[:2]) == {"long 1", "long 2"}
    assert [set(ended[2:4]), set(ended[4:6]), set(ended[6:])] == [{"p5", "p4"}, {"p3", "p2"}, {"p1", "p0"}]


def _wait_for_work(engine: OpenAIEngine) -> None:
    """Until the server has begun what was started: nothing tells a client, so a moment has to do."""
    time.sleep(0.5)
    assert engine.poll(0) == []


def _until_idle(engine: OpenAIEngine, num: int) -> list[Finished]:
    ended: list[Finished] = []
    while len(ended) < num:
        events = engine.poll(30)
        assert events, "the server hangs"
        assert all(isinstance(event, Finished) for event in events), events
        ended += [event for event in events if isinstance(event, Finished)]
    return ended


def test_fields_of_its_own_are_honoured(engine: OpenAIEngine) -> None:
    """What only vLLM knows (`ignore_eos`) is passed on: answers run to the last token of their limit."""
    [answer] = Pipeline(engine=engine).run([of_fixed_length("a", 123)])
    assert (answer.completion_tokens, answer.finish_reason) == (123, "length")


def test_what_the_server_refuses_is_an_error_of_its_row(engine: OpenAIEngine) -> None:
    """A limit beyond the model's context costs one row, with the server's words; the others are answered."""
    refused, answered = Pipeline(engine=engine).run([of_fixed_length("a", 100_000), of_fixed_length("b", 5)])
    assert refused.error is not None
    assert "2048" in refused.error.message
    assert answered.completion_tokens == 5


def test_the_servers_log_has_the_lengths_that_it_told(server: Server, engine: OpenAIEngine) -> None:
    """What `lengthwise import` reads in a real log are the prompts that were sent and the tokens that were counted."""
    chat = [Request(f"r{i}", prompt, max_tokens=60) for i, prompt in enumerate(prompts(6))]
    answers = Pipeline(engine=engine).run([*chat, Request("raw", "It's", max_tokens=5, is_raw=True)])
    streamed = {prompt: _stream(server, prompt) for prompt in ("Is it cold today?", "Write an essay about bread.")}
    rows = list(import_lengths(server.log))
    by_id = {row.id: row for row in rows if isinstance(row, LengthRow)}
    for request, answer in zip(chat, answers, strict=False):
        assert answer.response is not None
        row = by_id[answer.response["id"]]
        assert row.prompt["messages"] == [{"role": "user", "content": request.prompt}]
        assert (row.lengths["length"], row.is_cut) == (answer.completion_tokens, answer.finish_reason == "length")
        assert (row.max_tokens, row.model) == (60, NAME)
    found = {row.prompt["messages"][0]["content"]: row.lengths["length"] for row in by_id.values()}
    assert {prompt: found[prompt] for prompt in streamed} == streamed
    assert any("prints no answers of /v1/completions" in row.reason for row in rows if isinstance(row, LeftOut))


def _stream(server: Server, prompt: str) -> int:
    """A streamed answer's tokens, as the server counts them."""
    body = {"model": NAME, "messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 40}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    answer = httpx2.post(f"{server.base_url}/chat/completions", json=body, timeout=60)
    *_, last, _ = [line for line in answer.text.split("\n\n") if line.strip()]
    return int(json.loads(last.removeprefix("data: "))["usage"]["completion_tokens"])


# -- the command -----------------------------------------------------------------------------------------------


def run_command(server: Server, asked: Path, answers: Path) -> list[str]:
    command = [sys.executable, "-m", "lengthwise.cli", "run", str(asked), "-o", str(answers), "--engine", "openai"]
    return [*command, "--base-url", server.base_url, "--model", NAME, "--concurrency", "4", "--quiet"]


def test_an_openai_batch_file_is_answered(server: Server, tmp_path: Path) -> None:
    """Chat and completions of one batch file, answered by vLLM, in its order, in the API's shape."""
    lines = [
        ("chat", "/v1/chat/completions", {"messages": [{"role": "user", "content": "Is it cold?"}], "max_tokens": 40}),
        ("raw", "/v1/completions", {"prompt": "Is it cold", "max_tokens": 7}),
        ("bad", "/v1/completions", {"prompt": "x", "max_tokens": 100_000}),
    ]
    asked = tmp_path / "batch.jsonl"
    asked.write_text(
        "".join(
            json.dumps({"custom_id": name, "method": "POST", "url": url, "body": {"model": "any", **body}}) + "\n"
            for name, url, body in lines
        )
    )
    done = subprocess.run(
        run_command(server, asked, tmp_path / "out.jsonl"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr  # one row failed
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    failed = [json.loads(line) for line in (tmp_path / "out.errors.jsonl").read_text().splitlines()]
    assert [row["custom_id"] for row in rows] == ["chat", "raw"]
    assert [row["custom_id"] for row in failed] == ["bad"]
    kinds = [row["response"]["body"]["object"] for row in rows]
    assert kinds == ["chat.completion", "text_completion"]
    assert rows[1]["response"]["body"]["usage"]["completion_tokens"] == 7


def test_killed_jobs_go_on(server: Server, tmp_path: Path) -> None:
    """`kill -9` in the midst of the answers, twice, then the same command: every id once, in order, the texts of a
    job that was never killed."""
    num_rows = 60
    asked = tmp_path / "p.jsonl"
    rows = [{"id": f"r{i}", "prompt": text, "max_tokens": 60} for i, text in enumerate(prompts(num_rows))]
    asked.write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = texts_of(run_command(server, asked, tmp_path / "whole.jsonl"), tmp_path / "whole.jsonl")
    killed = run_command(server, asked, tmp_path / "killed.jsonl")
    for target in (10, 35):
        _kill_at(killed, tmp_path / "killed.jsonl", target)
    assert texts_of(killed, tmp_path / "killed.jsonl") == whole
    assert list(whole) == [f"r{i}" for i in range(num_rows)]


def texts_of(command: list[str], answers: Path) -> dict[str, str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row["text"] for row in rows}


def _kill_at(command: list[str], answers: Path, num_finished: int) -> None:
    """Kill the command when its journal has so many records; it must not have ended by itself before."""
    journal = answers.with_name(f"{answers.name}.journal")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") <= num_finished):
            time.sleep(0.002)
        assert process.poll() is None, "the job ended before it could be killed"
        process.kill()
    assert not answers.exists()
