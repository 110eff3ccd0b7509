"""Prompts in, rows of lengths out: several answers a prompt, in one row, whatever happens meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from lengthwise.errors import EngineError, JobError, UsageError
from lengthwise.intake import request_seed
from lengthwise.jobs import Job, JobOptions, JobResult
from lengthwise.jobs.collecting import CollectJob, CollectOptions
from lengthwise.jobs.collecting.tally import Tally, tally
from lengthwise.learning.data import read_data
from lengthwise.pipeline import Pipeline
from lengthwise.types import SamplingParams
from tests.jobs.samples import LIMIT, AnyLengths, WatchedEngine, expected_length

PROGRAM = Path(__file__).with_name("killed_collection.py")


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def collect(engine: WatchedEngine, prompts: Path, answers: Path, **options: Any) -> JobResult:
    asked = {"temperatures": (0.0, 0.5), "num_samples": 2, **options}
    wanted = CollectOptions(prompts=prompts, answers=answers, **asked)
    pipeline = Pipeline(engine=engine, predictor="none", seed=wanted.seed, window=wanted.window)
    with CollectJob.open(wanted) as job, pipeline:
        return job.run(pipeline)


# -- rows ------------------------------------------------------------------------------------------------------


def test_a_row_a_prompt_with_all_its_samples(tmp_path: Path) -> None:
    """A prompt's row has one greedy length and two at 0.5, in that order, in the order of the prompts."""
    prompts = lines(tmp_path / "p.jsonl", *({"id": f"r{i}", "prompt": f"Say {i}."} for i in range(30)))
    result = collect(WatchedEngine(), prompts, tmp_path / "l.jsonl")
    assert (result.status, result.num_requests, result.num_failed) == ("done", 90, 0)
    rows = read(tmp_path / "l.jsonl")
    assert [row["id"] for row in rows] == [f"r{i}" for i in range(30)]
    for row in rows:
        names = [row["id"] + suffix for suffix in ("#t0#1", "#t0.5#1", "#t0.5#2")]
        assert row["length"] == [expected_length(name) for name in names]
        assert row["finish_reason"] == ["length" if AnyLengths()[name] > LIMIT else "stop" for name in names]
        assert row["temperatures"] == [0, 0.5, 0.5]
        assert row["model"] == "replay"
    assert {reason for row in rows for reason in row["finish_reason"]} == {"stop", "length"}


def test_each_sample_draws_by_itself(tmp_path: Path) -> None:
    """Samples of a prompt have seeds of their own, from the job's seed and their ids; a row's own seed, temperature and
    number of choices give way, its other settings hold."""
    row = {"id": "a", "prompt": "x", "seed": 7, "temperature": 1.5, "top_p": 0.9, "n": 3, "max_tokens": 20}
    engine = WatchedEngine()
    collect(engine, lines(tmp_path / "p.jsonl", row), tmp_path / "l.jsonl", seed=5)
    first, second = engine.requests["a#t0.5#1"].sampling, engine.requests["a#t0.5#2"].sampling
    assert (first.temperature, first.top_p) == (0.5, 0.9)
    assert first.seed == request_seed(5, "a#t0.5#1") != second.seed
    assert engine.requests["a#t0#1"].sampling.is_greedy
    assert engine.requests["a#t0#1"].max_tokens == 20
    assert not engine.requests["a#t0#1"].api_fields


def test_prompts_come_back_as_read_data_reads_them(tmp_path: Path) -> None:
    """Settings and further fields stand in the row; what was known of lengths before does not, or it would be learned
    in their place."""
    old = {"L_t0.3": 500, "length": 4, "completion_tokens": 9, "text": "old", "usage": {"completion_tokens": 1}}
    prompts = lines(
        tmp_path / "p.jsonl",
        {"id": "a", "instruction": "Add.", "input": "2, 3", "family": "sums", **old},
        {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 30, "stop": ["."]},
    )
    collect(WatchedEngine(), prompts, tmp_path / "l.jsonl", sampling=SamplingParams(top_p=0.8))
    first, second = read(tmp_path / "l.jsonl")
    assert (first["prompt"], first["family"], first["top_p"]) == ("Add.\n2, 3", "sums", 0.8)
    assert not {"L_t0.3", "completion_tokens", "text", "usage", "instruction"} & first.keys()
    assert second["messages"] == [{"role": "user", "content": "Hi"}]
    assert (second["id"], second["max_tokens"], second["stop"]) == ("2", 30, ["."])
    data = read_data(tmp_path / "l.jsonl")
    assert data.lengths.shape == (2, 3)
    assert data.requests[1].max_tokens == 30
    assert data.requests[0].metadata == {"family": "sums"}
    assert data.limit is None


def test_a_named_field_is_the_prompt(tmp_path: Path) -> None:
    """With another field for the prompt the row has it as `prompt`, and no second one."""
    prompts = lines(tmp_path / "p.jsonl", {"text": "What?", "prompt": "not this"})
    collect(WatchedEngine(), prompts, tmp_path / "l.jsonl", prompt_field="text")
    assert read(tmp_path / "l.jsonl")[0]["prompt"] == "What?"
    assert read_data(tmp_path / "l.jsonl").requests[0].prompt == "What?"


def test_texts_are_kept_where_asked_for(tmp_path: Path) -> None:
    prompts = lines(tmp_path / "p.jsonl", {"id": "a", "prompt": "x"})
    collect(WatchedEngine(), prompts, tmp_path / "l.jsonl", keeps_text=True)
    row = read(tmp_path / "l.jsonl")[0]
    assert row["text"] == [
        f"a#{sample}: {n} tokens" for sample, n in zip(("t0#1", "t0.5#1", "t0.5#2"), row["length"], strict=True)
    ]


@pytest.mark.parametrize("kind", ["text", "parquet", "batch", "standard input"])
def test_all_kinds_of_prompts(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text, Parquet, batches and standard input are prompts, as for `run`."""
    path = tmp_path / {"text": "p.txt", "parquet": "p.parquet"}.get(kind, "p.jsonl")
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"prompt": "One"}, {"prompt": "Two"}]), path)
    elif kind == "batch":
        bodies = [{"model": "m", "messages": [{"role": "user", "content": text}]} for text in ("One", "Two")]
        calls = [
            {"custom_id": str(i), "method": "POST", "url": "/v1/chat/completions", "body": body}
            for i, body in enumerate(bodies, start=1)
        ]
        lines(path, *calls)
    else:
        path.write_text("One\nTwo\n")
    if kind == "standard input":
        monkeypatch.setattr("sys.stdin", path.open())
        path = Path("-")
    assert collect(WatchedEngine(), path, tmp_path / "l.jsonl").status == "done"
    rows = read(tmp_path / "l.jsonl")
    assert [row["id"] for row in rows] == ["1", "2"]
    assert [request.text for request in read_data(tmp_path / "l.jsonl").requests] == ["One", "Two"]
    assert [len(row["length"]) for row in rows] == [3, 3]


def test_ids_that_are_line_numbers_give_way(tmp_path: Path) -> None:
    """As for `run`: a row without an id, whose number is another row's id, is `line-2`."""
    prompts = lines(tmp_path / "p.jsonl", {"id": "2", "prompt": "x"}, {"prompt": "y"})
    collect(WatchedEngine(), prompts, tmp_path / "l.jsonl")
    assert [row["id"] for row in read(tmp_path / "l.jsonl")] == ["2", "line-2"]


# -- failures --------------------------------------------------------------------------------------------------


def test_failed_samples_are_null_and_failed_prompts_stand_apart(tmp_path: Path) -> None:
    """A prompt keeps the lengths that it has; one without any, or that is no request, is in the file of errors. Asked
    again, both are mended, and rows that are no requests stay errors."""
    rows = [{"id": name, "prompt": "x"} for name in ("a", "b", "c")]
    prompts = lines(tmp_path / "p.jsonl", *rows, "no json\n")
    engine = WatchedEngine(failing=["a#t0.5#2", "b#"])
    result = collect(engine, prompts, tmp_path / "l.jsonl")
    assert (result.status, result.num_failed) == ("done", 1 + 3 + 3)
    a, c = read(tmp_path / "l.jsonl")
    assert (a["id"], a["length"][2], a["finish_reason"][2]) == ("a", None, "error")
    assert [error and error["type"] for error in a["error"]] == [None, None, "no_recorded_length"]
    assert "error" not in c
    failed = read(tmp_path / "l.errors.jsonl")
    assert [(row["id"], row["error"]["type"], row["error"]["line"]) for row in failed] == [
        ("b", "no_recorded_length", 2),
        ("4", "invalid_json", 4),
    ]
    data = read_data(tmp_path / "l.jsonl")
    assert data.lengths.shape == (2, 3)
    assert [request.metadata for request in data.requests] == [{}, {}]
    counted = tally(tmp_path / "l.jsonl")
    assert (counted.num_prompts, counted.num_partial, counted.num_failed, counted.num_answers) == (2, 1, 2, 5)

    result = collect(WatchedEngine(), prompts, tmp_path / "l.jsonl", retry_failed=True)
    assert (result.status, result.num_failed) == ("done", 3)
    assert [row["id"] for row in read(tmp_path / "l.jsonl")] == ["a", "b", "c"]
    assert [row["id"] for row in read(tmp_path / "l.errors.jsonl")] == ["4"]


def test_the_tally_is_what_stands_in_the_file(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "l.jsonl",
        {"length": [3, None], "finish_reason": ["stop", "error"]},
        {"length": [50, 4], "finish_reason": ["length", "stop"]},
    )
    assert tally(path) == Tally(num_prompts=2, num_partial=1, num_failed=0, num_answers=3, num_cut=1, num_tokens=57)


# -- going on --------------------------------------------------------------------------------------------------


class BrokenEngine(WatchedEngine):
    polls_left = 12

    def poll(self, timeout_s: float) -> list[Any]:
        self.polls_left -= 1
        if self.polls_left < 0:
            raise EngineError("The device is gone.")
        return super().poll(timeout_s)


def test_it_goes_on_where_it_broke(tmp_path: Path) -> None:
    """What was answered before is not asked again, and the file is that of a job that never broke."""
    prompts = lines(tmp_path / "p.jsonl", *({"id": f"r{i}", "prompt": f"Say {i}."} for i in range(30)))
    broken, engine = BrokenEngine(), WatchedEngine()
    with pytest.raises(EngineError, match="the same command goes on"):
        collect(broken, prompts, tmp_path / "l.jsonl")
    assert not (tmp_path / "l.jsonl").exists()
    result = collect(engine, prompts, tmp_path / "l.jsonl")
    assert 0 < result.num_resumed == 90 - len(engine.requests)
    collect(WatchedEngine(), prompts, tmp_path / "whole.jsonl")
    assert (tmp_path / "l.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert collect(WatchedEngine(), prompts, tmp_path / "l.jsonl").status == "already_done"


def run_program(folder: Path, fault: Sequence[object] | None) -> int:
    settings = {"prompts": str(folder / "p.jsonl"), "answers": str(folder / "l.jsonl"), "fault": fault}
    return subprocess.run([sys.executable, str(PROGRAM), json.dumps(settings)], check=False).returncode


def test_killed_at_any_step_it_goes_on(tmp_path: Path) -> None:
    """`kill -9` in the middle of a record, before and after the files are put into their places: one command after the
    other, and at the end the same bytes as without."""
    rows = [*({"id": f"r{i}", "prompt": f"Say {i}."} for i in range(20)), {"id": "bad0", "prompt": "x"}]
    prompts = lines(tmp_path / "p.jsonl", *rows, "no json\n")
    for fault in (
        ["tear-journal", 2],
        ["tear-journal", 30],
        ["before-rename", 1],
        ["before-rename", 2],
        ["after-rename", 1],
    ):
        assert run_program(tmp_path, fault) == -9, fault
    assert run_program(tmp_path, None) == 0
    (tmp_path / "whole").mkdir()
    collect(WatchedEngine(failing=["bad"]), prompts, tmp_path / "whole" / "l.jsonl")
    for name in ("l.jsonl", "l.errors.jsonl"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert {path.name for path in tmp_path.glob("l*")} == {"l.jsonl", "l.errors.jsonl", "l.jsonl.journal"}


def test_standard_input_goes_on_when_it_is_fed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same lines are known again; other ones are refused by their number."""
    prompts = tmp_path / "p.txt"
    prompts.write_text("".join(f"Say {i}.\n" for i in range(30)))
    monkeypatch.setattr("sys.stdin", prompts.open())
    with pytest.raises(EngineError):
        collect(BrokenEngine(), Path("-"), tmp_path / "l.jsonl")
    (tmp_path / "other.txt").write_text("Other.\n" * 30)
    monkeypatch.setattr("sys.stdin", (tmp_path / "other.txt").open())
    with pytest.raises(JobError, match=r"Line \d+ of standard input is another one"):
        collect(WatchedEngine(), Path("-"), tmp_path / "l.jsonl")
    monkeypatch.setattr("sys.stdin", prompts.open())
    assert collect(WatchedEngine(), Path("-"), tmp_path / "l.jsonl").num_resumed > 0
    assert len(read(tmp_path / "l.jsonl")) == 30


@pytest.mark.parametrize(
    ("changed", "told"),
    [({"temperatures": (0.0,)}, "temperatures"), ({"num_samples": 3}, "samples"), ({"keeps_text": True}, "keep_text")],
)
def test_another_collection_is_refused(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    """Answers of other temperatures or samples are never mixed."""
    prompts = lines(tmp_path / "p.jsonl", {"prompt": "x"})
    collect(WatchedEngine(), prompts, tmp_path / "l.jsonl")
    with pytest.raises(JobError, match=f"{told} was"):
        collect(WatchedEngine(), prompts, tmp_path / "l.jsonl", **changed)


def test_a_run_does_not_go_on_with_a_collection(tmp_path: Path) -> None:
    prompts = lines(tmp_path / "p.jsonl", {"prompt": "x"})
    collect(WatchedEngine(), prompts, tmp_path / "l.jsonl")
    with pytest.raises(JobError, match="output_format was 'lengths'"):
        Job.open(JobOptions(prompts, tmp_path / "l.jsonl"))


# -- options ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"temperatures": ()}, "No temperature"),
        ({"temperatures": (0.3, -1.0)}, "temperature is -1"),
        ({"temperatures": (float("nan"),)}, "temperature is nan"),
        ({"temperatures": (0.3, 0.3)}, "stands there twice"),
        ({"num_samples": 0}, "samples is 0"),
        ({"num_samples": 10**9}, "1,000 times"),
        ({"answers": Path("l.parquet")}, "JSON lines"),
        ({"max_tokens": 0}, "max_tokens is 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        CollectOptions(**{"prompts": Path("p"), "answers": Path("l.jsonl"), **options})
