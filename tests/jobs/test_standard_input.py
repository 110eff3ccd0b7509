"""Prompts from standard input: read once, by a thread, while answers are written."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.errors import EngineError, InputError, JobError, UsageError
from lengthwise.jobs import Job, JobOptions, JobResult
from lengthwise.pipeline import Pipeline
from lengthwise.types import Capabilities

NAMES = [f"r{i}" for i in range(30)]
LINES = [json.dumps({"id": name, "prompt": f"Prompt {name}"}) + "\n" for name in NAMES]
LINES[7] = "no json\n"


class BreakingEngine(ReplayEngine):
    starts_left = 10

    def start(self, *request: object) -> None:
        self.starts_left -= 1
        if self.starts_left < 0:
            raise EngineError("The device is gone.")
        super().start(*request)  # type: ignore[arg-type]


def pipeline(engine: type[ReplayEngine] = ReplayEngine) -> Pipeline:
    made = engine(dict.fromkeys(NAMES, 3), ReplayConfig(Capabilities(max_running=2)))
    return Pipeline(engine=made, predictor="none", window=4)


@contextmanager
def fed(monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> Iterator[None]:
    """A pipe at standard input into which another thread writes these lines."""
    read, write = os.pipe()

    def feed() -> None:
        with open(write, "w") as file:
            file.writelines(lines)

    writer = threading.Thread(target=feed)
    writer.start()
    with open(read, "rb") as pipe, monkeypatch.context() as patched:
        patched.setattr("sys.stdin", io.TextIOWrapper(pipe))
        yield
        pipe.read()
    writer.join()


@pytest.fixture
def options(tmp_path: Path) -> JobOptions:
    return JobOptions(Path("-"), tmp_path / "a.jsonl", window=4)


def run(
    options: JobOptions, monkeypatch: pytest.MonkeyPatch, lines: list[str], engine: type[ReplayEngine] = ReplayEngine
) -> JobResult:
    with fed(monkeypatch, lines), Job.open(options) as job, pipeline(engine) as running:
        return job.run(running)


def test_the_answers_are_those_of_a_file(options: JobOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same lines, fed or in a file, have the same answers, in order."""
    assert run(options, monkeypatch, LINES) == JobResult("done", 30, 30, 1, 0)
    prompts = options.answers.with_name("p.jsonl")
    prompts.write_text("".join(LINES))
    from_file = replace(options, prompts=prompts, answers=prompts.with_name("b.jsonl"))
    run(from_file, monkeypatch, [])
    assert options.answers.read_bytes() == from_file.answers.read_bytes()


def test_fed_again_it_goes_on(options: JobOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same input, once more, is skipped where it was answered."""
    with pytest.raises(EngineError, match=r"gone\. \d+ requests are finished"):
        run(options, monkeypatch, LINES, BreakingEngine)
    result = run(options, monkeypatch, LINES)
    assert (result.status, result.num_finished) == ("done", 30)
    assert result.num_resumed >= 8
    assert [json.loads(line)["id"] for line in options.answers.read_text().splitlines()][6:9] == ["r6", "8", "r8"]


def test_another_line_where_there_is_an_answer(options: JobOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, nothing is mixed, and the right input still goes on."""
    with pytest.raises(EngineError):
        run(options, monkeypatch, LINES, BreakingEngine)
    changed = [*LINES[:3], LINES[3].replace("Prompt", "Another"), *LINES[4:]]
    with pytest.raises(JobError, match="Line 4 of standard input is another one"):
        run(options, monkeypatch, changed)
    assert run(options, monkeypatch, LINES).status == "done"


def test_input_that_ends_too_soon(options: JobOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer rows than were answered are another input."""
    with pytest.raises(EngineError):
        run(options, monkeypatch, LINES, BreakingEngine)
    with pytest.raises(JobError, match="ended after 2 rows"):
        run(options, monkeypatch, LINES[:2])
    assert run(options, monkeypatch, LINES).status == "done"


def test_a_done_job_is_known_by_its_whole_input(options: JobOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fed the same it is complete; fed anything else, that is refused, and the answers are left alone."""
    run(options, monkeypatch, LINES)
    before = options.answers.read_bytes()
    with fed(monkeypatch, LINES), Job.open(options) as job:
        assert job.is_complete
    with pytest.raises(JobError, match="standard input is not what"):
        run(options, monkeypatch, LINES[1:])
    assert options.answers.read_bytes() == before
    assert run(replace(options, overwrite=True), monkeypatch, LINES[:3]).num_finished == 3


def test_a_doubled_id_stops_the_job_and_costs_nothing(options: JobOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found when its second line comes; what was finished by then is kept, and mended input goes on."""
    with pytest.raises(InputError, match="standard input: lines 2 and 31 have the same id 'r1'"):
        run(options, monkeypatch, [*LINES, LINES[1]])
    with pytest.raises(InputError, match="lines 2 and 31"):
        run(options, monkeypatch, [*LINES, LINES[1]])  # the first of them was answered, and is not answered again
    result = run(options, monkeypatch, LINES)
    assert (result.status, result.num_finished) == ("done", 30)
    assert result.num_resumed > 0


def test_killed_between_the_answers_and_the_journal(options: JobOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers that are there are found to be this job's, though how many rows there are is told only at the end."""

    def killed(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("lengthwise.journal.Journal.mark_done", killed)
        with pytest.raises(KeyboardInterrupt):
            run(options, patched, LINES)
    assert run(options, monkeypatch, LINES) == JobResult("done", 30, 30, 1, 30)


def test_failed_rows_are_answered_again(options: JobOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same input, fed once more."""
    unknown = [*LINES, '{"id": "unknown", "prompt": "x"}\n']
    assert run(options, monkeypatch, unknown).num_failed == 2
    result = run(replace(options, retry_failed=True), monkeypatch, unknown)
    assert result == JobResult("done", 31, 31, 2, 29)


@pytest.mark.parametrize("is_retry", [True, False])
def test_a_longer_input_is_not_what_a_done_job_was_made_from(
    options: JobOptions, monkeypatch: pytest.MonkeyPatch, is_retry: bool
) -> None:
    """Answering its failed rows again, it is refused where it goes beyond, and nothing of that is recorded."""
    run(options, monkeypatch, LINES)
    before = options.answers.read_bytes()
    longer = [*LINES, '{"id": "more", "prompt": "x"}\n']
    with pytest.raises(JobError, match=r"standard input (has more than the 30 rows|is not what)"):
        run(replace(options, retry_failed=is_retry), monkeypatch, longer)
    assert options.answers.read_bytes() == before
    assert b"more" not in options.journal.read_bytes()
    assert run(replace(options, retry_failed=True), monkeypatch, LINES).num_finished == 30


def test_the_file_that_is_fed_is_not_written_over(options: JobOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """`run - -o prompts < prompts` is refused, also with --overwrite, and so are the names of what is temporary."""
    for name in ("a.jsonl", "a.jsonl.journal", "a.jsonl.journal.answers", "a.jsonl.journal.tmp"):
        prompts = options.answers.with_name(name)
        prompts.write_text("".join(LINES))
        with prompts.open() as fed_in, monkeypatch.context() as patched:
            patched.setattr("sys.stdin", fed_in)
            with pytest.raises(UsageError, match="over the prompts that are fed to standard input"):
                Job.open(replace(options, overwrite=True))
        assert prompts.read_text() == "".join(LINES)
        prompts.unlink()


def test_a_file_is_no_standard_input(options: JobOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was begun from the one does not go on with the other: its lines carry no digests."""
    prompts = options.answers.with_name("p.jsonl")
    prompts.write_text("".join(LINES))
    with pytest.raises(EngineError):
        run(replace(options, prompts=prompts), monkeypatch, [], BreakingEngine)
    with pytest.raises(JobError, match=r"input was .* and is 'standard input' now"):
        run(options, monkeypatch, LINES)
