"""Answers as they are completed: a file that grows is always a beginning of what the journal holds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.errors import EngineError, JobError, UsageError
from lengthwise.jobs import Job, JobOptions, JobResult, PassingJob
from lengthwise.pipeline import Pipeline
from lengthwise.testing import recorded_lengths
from lengthwise.types import Capabilities, Event
from tests.jobs.breaking import BreakingEngine

LENGTHS = recorded_lengths(30)


def pipeline(engine: type[ReplayEngine] = ReplayEngine) -> Pipeline:
    made = engine(LENGTHS, ReplayConfig(Capabilities(max_running=4)))
    return Pipeline(engine=made, predictor="none", window=8)


@pytest.fixture
def options(tmp_path: Path) -> JobOptions:
    """Thirty requests and, as the third row, one that is none."""
    lines = [json.dumps({"id": name, "prompt": f"Prompt {name}"}) for name in LENGTHS]
    lines.insert(2, "no json")
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    return JobOptions(tmp_path / "p.jsonl", tmp_path / "a.jsonl", as_completed=True)


def run(options: JobOptions, engine: type[ReplayEngine] = ReplayEngine) -> JobResult:
    with Job.open(options) as job, pipeline(engine) as running:
        return job.run(running)


def run_some(options: JobOptions) -> None:
    with pytest.raises(EngineError, match="finished and safe"):
        run(options, BreakingEngine)


def journaled(options: JobOptions, is_failed: bool | None = None) -> bytes:
    """The journal's answers in its order."""
    records = [json.loads(line) for line in options.journal.read_bytes().splitlines()[1:]]
    wanted = [one for one in records if "index" in one and is_failed in (None, one["failed"])]
    return b"".join(json.dumps(one["answer"], ensure_ascii=False).encode() + b"\n" for one in wanted)


def lines(path: Path) -> list[bytes]:
    return sorted(path.read_bytes().splitlines())


def test_the_lines_are_those_of_a_job_in_order(options: JobOptions) -> None:
    """The same lines as without the option, in another order, and nothing beside them."""
    assert run(options) == JobResult("done", 31, 31, 1, 0)
    ordered = replace(options, answers=options.answers.with_name("ordered.jsonl"), as_completed=False)
    run(ordered)
    assert lines(options.answers) == lines(ordered.answers)
    assert options.answers.read_bytes() != ordered.answers.read_bytes(), "short answers are there first"


def test_a_line_is_in_the_file_when_its_answer_is_there(options: JobOptions) -> None:
    """While a job runs, the file holds what the journal holds: whoever follows it waits for nothing."""
    with Job.open(options) as job, pipeline() as running:
        append = job._journal.append
        seen: list[bool] = []

        def append_and_look(*record: Any) -> None:
            content = options.answers.read_bytes() if seen else b""
            seen.append(content == journaled(options))
            append(*record)

        job._journal.append = append_and_look  # type: ignore[method-assign]
        job.run(running)
    assert seen == [True] * 31


@pytest.mark.parametrize("damage", [lambda whole: whole, lambda whole: whole[: len(whole) // 2], lambda whole: b""])
def test_what_a_kill_leaves_is_made_whole(options: JobOptions, damage: Callable[[bytes], bytes]) -> None:
    """A file that is behind the journal, in the middle of a line too, is completed; the job goes on from there."""
    run_some(options)
    options.answers.write_bytes(damage(options.answers.read_bytes()))
    result = run(options)
    assert result.num_resumed > 0
    assert len({json.loads(line)["id"] for line in lines(options.answers)}) == len(lines(options.answers)) == 31


def test_a_file_that_was_removed_is_written_again(options: JobOptions) -> None:
    """It is made from the journal, which is what counts."""
    run_some(options)
    before = options.answers.read_bytes()
    options.answers.unlink()
    run(options)
    assert options.answers.read_bytes().startswith(before)
    assert len(lines(options.answers)) == 31


@pytest.mark.parametrize("where", ["before", "after", "instead"])
def test_anything_else_in_the_file_is_refused(options: JobOptions, where: str) -> None:
    """What is not of this job is neither kept among its answers nor written over."""
    run_some(options)
    content = options.answers.read_bytes()
    changed = {"before": b"{}\n" + content, "after": content + b"{}\n", "instead": b"x" * len(content)}[where]
    options.answers.write_bytes(changed)
    with pytest.raises(JobError, match=r"a\.jsonl was not made by this job.*Move it away: the journal has"):
        Job.open(options)
    assert options.answers.read_bytes() == changed
    options.answers.unlink()
    assert run(options).status == "done"


def test_a_foreign_file_is_refused_before_any_work(options: JobOptions) -> None:
    options.answers.write_text("precious")
    with pytest.raises(JobError, match="not made by this job"):
        Job.open(options)


def test_it_is_done_like_any_other(options: JobOptions) -> None:
    """The same command again does nothing; a file that was changed is left alone."""
    run(options)
    with Job.open(options) as job:
        assert job.is_complete
    options.answers.write_bytes(options.answers.read_bytes()[:-1])
    with pytest.raises(JobError, match="was changed since"):
        Job.open(options)


def test_the_order_may_be_chosen_when_a_job_is_resumed(options: JobOptions) -> None:
    """Begun in order, it may go on as completed. Begun as completed, its file is this job's own, and is replaced by
    one in the order of the prompts when all is done; until then it stays."""
    run_some(replace(options, as_completed=False))
    run_some(options)
    before = options.answers.read_bytes()
    with Job.open(replace(options, as_completed=False)) as job, pipeline() as running:
        assert options.answers.read_bytes() == before
        assert job.run(running).status == "done"
    assert [json.loads(line)["id"] for line in options.answers.read_bytes().splitlines()][:3] == ["r0", "r1", "3"]


@pytest.mark.parametrize("num_bytes", [0, 10])
def test_an_empty_or_torn_file_is_its_own(options: JobOptions, num_bytes: int) -> None:
    """What a kill leaves may be replaced in any order, and by a job that answers failed rows again."""
    run_some(options)
    os.truncate(options.answers, num_bytes)
    assert run(replace(options, as_completed=False, retry_failed=True)).status == "done"
    assert len(lines(options.answers)) == 31


def at_poll(num: int, act: Callable[[], Any]) -> type[ReplayEngine]:
    """An engine during whose so-and-so-manieth poll something happens."""

    class Disturbed(ReplayEngine):
        polls_left = num

        def poll(self, timeout_s: float) -> list[Event]:
            self.polls_left -= 1
            if self.polls_left == 0:
                act()
            return super().poll(timeout_s)

    return Disturbed


def test_a_file_that_is_removed_while_it_grows_is_no_done_job(options: JobOptions) -> None:
    """That is said, nothing is lost, and the same command writes it again."""
    with pytest.raises(JobError, match=r"moved or removed while answers were added.*safe in the journal"):
        run(options, at_poll(9, options.answers.unlink))
    assert not options.answers.exists()
    assert run(options) == JobResult("done", 31, 31, 1, 31)
    assert options.answers.read_bytes() == journaled(options)


@pytest.mark.parametrize("num_bytes", [0, 100])
def test_a_file_that_is_truncated_while_it_grows_is_no_done_job(options: JobOptions, num_bytes: int) -> None:
    """Nor one that was written into: moved away, the same command writes it again."""
    with pytest.raises(JobError, match="was changed while answers were added"):
        run(options, at_poll(15, lambda: os.truncate(options.answers, num_bytes)))
    with pytest.raises(JobError, match="Move it away"):
        Job.open(options)
    options.answers.unlink()
    assert run(options).status == "done"
    assert len(lines(options.answers)) == 31


def test_answers_in_order_that_are_there_do_not_grow(options: JobOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before it was marked done, a job in order that goes on as completed ends in order: no row twice."""

    def killed(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("lengthwise.journal.Journal.mark_done", killed)
        with pytest.raises(KeyboardInterrupt):
            run(replace(options, as_completed=False))
    before = options.answers.read_bytes()
    assert run(options).status == "done"
    assert options.answers.read_bytes() == before


def test_a_batch_grows_in_both_its_files(options: JobOptions) -> None:
    """Answers and errors each hold their lines of the journal."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi."}]}
    call = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    calls = [json.dumps({"custom_id": name, **call}) for name in [*LENGTHS, "unknown"]]
    options.prompts.write_text("\n".join(calls))
    run_some(options)
    answers, errors = options.answers, options.answers.with_name("a.errors.jsonl")
    assert answers.read_bytes() == journaled(options, is_failed=False)
    answers.write_bytes(answers.read_bytes()[:-5])
    num_before = journaled(options).count(b"\n")
    assert 0 < num_before < 31
    assert run(options) == JobResult("done", 31, 31, 1, num_before)
    assert len(lines(answers)) == 30
    assert errors.read_bytes() == journaled(options, is_failed=True)
    with Job.open(options) as job:
        assert job.is_complete


def test_a_foreign_file_of_errors_is_refused(options: JobOptions) -> None:
    """Also while nothing failed that would belong in it."""
    options = replace(options, output_format="openai-batch")
    options.prompts.write_text(options.prompts.read_text().replace("no json\n", ""))
    run_some(options)
    options.answers.with_name("a.errors.jsonl").write_text("precious")
    with pytest.raises(JobError, match=r"a\.errors\.jsonl was not made by this job"):
        Job.open(options)


def test_parquet_cannot_grow(options: JobOptions) -> None:
    """Refused before anything is done, with the ways out."""
    with pytest.raises(UsageError, match=r"parquet can't grow.*--output-format"):
        Job.open(replace(options, answers=options.answers.with_suffix(".parquet")))


class TestToAStream:
    """Without a file there is no journal."""

    @pytest.fixture
    def to_stream(self, options: JobOptions) -> JobOptions:
        return replace(options, answers=Path("-"))

    def test_the_lines_are_those_of_a_file(self, options: JobOptions, to_stream: JobOptions) -> None:
        """Each line as it is completed, the same as in a file; nothing is left on the disk."""
        written: list[bytes] = []
        with PassingJob.open(to_stream, written.append) as job, pipeline() as running:
            assert job.run(running) == JobResult("done", 31, 31, 1, 0)
        assert [path.name for path in options.prompts.parent.iterdir()] == ["p.jsonl"]
        run(options)
        assert b"".join(written) == options.answers.read_bytes()

    def test_a_reader_that_goes_ends_it(self, to_stream: JobOptions) -> None:
        """A broken pipe is no error: nothing more is answered."""

        def write(line: bytes) -> None:
            raise BrokenPipeError

        with PassingJob.open(to_stream, write) as job, pipeline() as running:
            assert job.run(running).status == "unread"
            assert running.counts.num_finished < 31

    def test_it_can_be_stopped(self, to_stream: JobOptions) -> None:
        """Drained, it gives out what runs, and says that it was interrupted."""
        written: list[bytes] = []
        with PassingJob.open(to_stream, lambda line: written.append(line) or job.drain()) as job, pipeline() as running:
            result = job.run(running)
        assert (result.status, result.num_finished) == ("interrupted", len(written))
        assert 0 < len(written) < 31
