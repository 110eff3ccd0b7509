"""Which files are a job's own; what is thrown away by --overwrite, and when."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.errors import JobError
from lengthwise.jobs import Job, JobOptions, JobResult
from lengthwise.jobs.outputs import digest_at
from lengthwise.jobs.places import is_beginning
from lengthwise.pipeline import Pipeline
from lengthwise.types import Capabilities

NAMES = [f"r{i}" for i in range(10)]


def run(options: JobOptions) -> JobResult:
    engine = ReplayEngine(dict.fromkeys(NAMES, 3), ReplayConfig(Capabilities(max_running=2)))
    with Job.open(options) as job, Pipeline(engine=engine, predictor="none") as pipeline:
        return job.run(pipeline)


@pytest.fixture
def options(tmp_path: Path) -> JobOptions:
    """Ten requests, and a row that is none."""
    lines = [json.dumps({"id": name, "prompt": "Hi."}) for name in NAMES]
    (tmp_path / "p.jsonl").write_text("\n".join([*lines, "no json"]))
    return JobOptions(tmp_path / "p.jsonl", tmp_path / "a.jsonl")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@given(st.lists(st.binary(max_size=4).map(lambda line: line + b"\n"), max_size=4), st.binary(max_size=12))
def test_a_beginning_is_a_beginning(lines: list[bytes], content: bytes) -> None:
    """Of the lines one after the other: all, some, a torn one, none; nothing else, and nothing behind them."""
    path = Path("/dev/shm" if Path("/dev/shm").is_dir() else "/tmp", "lengthwise-test-beginning")
    whole = b"".join(lines)
    try:
        for written in (content, whole, whole + content, whole[: len(content)], whole[:-1]):
            path.write_bytes(written)
            assert is_beginning(path, lines) == whole.startswith(written)
    finally:
        path.unlink()


def test_a_file_that_cannot_be_read_has_no_digest(tmp_path: Path) -> None:
    """Nobody knows whose it is, so nothing is done with it; one that is not there has none."""
    assert digest_at(tmp_path / "none") is None
    with pytest.raises(JobError, match=r"can't be read \(Is a directory\).*move it away"):
        digest_at(tmp_path)


class TestOverwriting:
    """What is there goes when there is something to put in its place."""

    def test_nothing_goes_before_there_is_an_answer(self, options: JobOptions) -> None:
        """A run that ends before its first one has cost neither the answers nor the journal."""
        run(options)
        before = contents(options.answers.parent)
        with Job.open(replace(options, overwrite=True, seed=5)) as job:
            job.drain()
            engine = ReplayEngine({})
            with Pipeline(engine=engine, predictor="none") as pipeline:
                assert job.run(pipeline).status == "interrupted"
        assert contents(options.answers.parent) == before

    def test_answers_of_another_job_are_no_errors_of_this_one(self, options: JobOptions) -> None:
        """A file that was named as answers is not thrown away as the errors of a batch."""
        run(replace(options, answers=options.answers.with_name("a.errors.jsonl")))
        before = contents(options.answers.parent)
        with pytest.raises(JobError, match=r"a\.errors\.jsonl has a journal: it is the answers of another job"):
            run(replace(options, output_format="openai-batch", overwrite=True))
        assert contents(options.answers.parent) == before

    @pytest.mark.parametrize("is_changed", [False, True])
    def test_the_errors_of_a_batch_that_is_none_any_more(self, options: JobOptions, is_changed: bool) -> None:
        """They go with it, if they are as it has left them."""
        run(replace(options, output_format="openai-batch"))
        errors = options.answers.with_name("a.errors.jsonl")
        if is_changed:
            errors.write_text("mine")
        run(replace(options, output_format="jsonl", overwrite=True))
        assert errors.exists() == is_changed
        assert len(options.answers.read_text().splitlines()) == 11

    def test_a_batch_is_made_anew_in_both_its_files(self, options: JobOptions) -> None:
        options = replace(options, output_format="openai-batch")
        run(options)
        before = contents(options.answers.parent)
        assert run(replace(options, overwrite=True)).status == "done"
        assert contents(options.answers.parent) == before


def test_an_errors_file_that_is_gone_is_written_again(options: JobOptions) -> None:
    options = replace(options, output_format="openai-batch")
    run(options)
    before = contents(options.answers.parent)
    options.answers.with_name("a.errors.jsonl").unlink()
    assert run(options).status == "done"
    after = contents(options.answers.parent)
    assert [after[name] == before[name] for name in ("a.jsonl", "a.errors.jsonl")] == [True, True]


def test_journals_that_can_not_be_replaced(options: JobOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is told, not what went wrong while cleaning up after it."""

    replace_file = os.replace

    def full(old: Path, new: Path) -> None:
        if new == options.journal:
            raise OSError(28, "No space left on device")
        replace_file(old, new)

    def refused(*args: object, **options: object) -> None:
        raise OSError(1, "Operation not permitted")

    options.prompts.write_text(options.prompts.read_text().replace("\nno json", ""))
    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr("pathlib.Path.unlink", refused)
    with pytest.raises(JobError, match="No space left on device"):
        run(options)
