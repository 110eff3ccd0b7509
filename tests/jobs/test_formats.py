"""Whole jobs from each format to each other."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from openai.types import Completion as ApiCompletion
from openai.types.chat import ChatCompletion
from pyarrow import parquet

from lengthwise.engines.replay import ReplayEngine
from lengthwise.engines.transformers import ModelOptions, RunOptions, open_engine
from lengthwise.jobs import Job, JobOptions, JobResult
from lengthwise.pipeline import Pipeline
from lengthwise.protocols import Engine

IDS = ["a", "b", "c", "d"]
LENGTHS = dict(zip(IDS, (30, 3, 600, 7), strict=True))
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def replay() -> Engine:
    return ReplayEngine(LENGTHS)


def jsonl(path: Path) -> None:
    rows = [{"id": name, "prompt": f"Prompt {name}", "topic": "tea"} for name in IDS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def compressed(path: Path) -> None:
    jsonl(path)
    path.write_bytes(gzip.compress(path.read_bytes()))


def batch(path: Path, max_tokens: int = 512) -> None:
    def body(name: str) -> dict[str, Any]:
        prompt = (
            {"prompt": "Once upon"} if name == "b" else {"messages": [{"role": "user", "content": f"Prompt {name}"}]}
        )
        return {"model": "gpt-4o-mini", **prompt, "max_tokens": max_tokens}

    calls = [
        {"custom_id": name, "method": "POST", "url": COMPLETIONS if name == "b" else CHAT, "body": body(name)}
        for name in IDS
    ]
    path.write_text("".join(json.dumps(call) + "\n" for call in calls))


def table(path: Path) -> None:
    columns = {"id": IDS, "prompt": [f"Prompt {name}" for name in IDS], "topic": ["tea"] * 4}
    parquet.write_table(pa.table(columns), path)


def run(prompts: Path, answers: Path, engine: Engine | None = None, **options: Any) -> JobResult:
    made = JobOptions(prompts, answers, **options)
    with Job.open(made) as job, Pipeline(engine=engine or replay()) as pipeline:
        return job.run(pipeline)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("make", [jsonl, compressed, batch, table])
@pytest.mark.parametrize("output_format", ["jsonl", "openai-batch", "parquet"])
def test_every_format_becomes_every_other(tmp_path: Path, make: Callable[[Path], None], output_format: str) -> None:
    """The same answers under the same ids in the order of the prompts, whatever the files are."""
    make(tmp_path / "prompts")
    result = run(tmp_path / "prompts", tmp_path / "answers", output_format=output_format)
    assert result == JobResult("done", 4, 4, 0, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers", "answers.journal", "prompts"]
    texts = [f"{name}: {min(512, LENGTHS[name])} tokens" for name in IDS]
    reasons = ["stop", "stop", "length", "stop"]
    if output_format == "parquet":
        read = parquet.read_table(tmp_path / "answers").to_pylist()
        assert [(row["id"], row["text"], row["finish_reason"]) for row in read] == list(
            zip(IDS, texts, reasons, strict=True)
        )
        wanted = None if make is batch else '{"topic": "tea"}'
        assert [row["metadata"] for row in read] == [wanted] * 4
    elif output_format == "jsonl":
        read = lines(tmp_path / "answers")
        assert [(row["id"], row["text"], row["finish_reason"]) for row in read] == list(
            zip(IDS, texts, reasons, strict=True)
        )
        assert [row.get("metadata") for row in read] == [None if make is batch else {"topic": "tea"}] * 4
    else:
        read = lines(tmp_path / "answers")
        assert [line["custom_id"] for line in read] == IDS
        bodies = [line["response"]["body"] for line in read]
        assert [body["object"] for body in bodies].count("text_completion") == (make is batch)
        assert [body["choices"][0]["finish_reason"] for body in bodies] == reasons
        assert [body["usage"]["completion_tokens"] for body in bodies] == [30, 3, 512, 7]


class TestBatchFile:
    """A batch as OpenAI documents it runs as it is."""

    def write(self, path: Path, max_tokens: int) -> None:
        batch(path, max_tokens)
        more = [
            {
                "custom_id": "n",
                "method": "POST",
                "url": CHAT,
                "body": {"messages": [{"role": "user", "content": "x"}], "n": 2},
            },
            {"custom_id": "e", "method": "POST", "url": "/v1/embeddings", "body": {"input": "x"}},
        ]
        with path.open("a") as file:
            file.write("".join(json.dumps(line) + "\n" for line in more) + "no json\n")

    def check(self, folder: Path) -> None:
        for line in lines(folder / "out.jsonl"):
            kind = ApiCompletion if line["custom_id"] == "b" else ChatCompletion
            body = kind.model_validate(line["response"]["body"], strict=True)
            assert body.usage is not None
            assert body.usage.total_tokens == body.usage.prompt_tokens + body.usage.completion_tokens
        assert [line["custom_id"] for line in lines(folder / "out.jsonl")] == IDS
        errors = lines(folder / "out.errors.jsonl")
        assert [(line["custom_id"], line["response"]["body"]["error"]["code"]) for line in errors] == [
            ("n", "unsupported_parameter"),
            ("e", "invalid_request"),
            ("7", "invalid_json"),
        ]

    def test_with_recorded_lengths(self, tmp_path: Path) -> None:
        """Answers in one file, errors in another."""
        self.write(tmp_path / "in.jsonl", 512)
        engine = ReplayEngine({**LENGTHS, "n": 5})
        assert run(tmp_path / "in.jsonl", tmp_path / "out.jsonl", engine) == JobResult("done", 7, 7, 3, 0)
        self.check(tmp_path)

    def test_with_a_model(self, tmp_path: Path, chat_llama_dir: Path) -> None:
        """The same file on a real model gives files of the same shape."""
        self.write(tmp_path / "in.jsonl", 20)
        engine = open_engine(
            ModelOptions(model=str(chat_llama_dir), device="cpu"), RunOptions(max_tokens=20, batch_size=4)
        )
        assert run(tmp_path / "in.jsonl", tmp_path / "out.jsonl", engine).status == "done"
        self.check(tmp_path)
        assert all(line["response"]["body"]["model"] == engine.model for line in lines(tmp_path / "out.jsonl"))
