"""`retry_failed`: rows that ended as errors are answered again, and no other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.errors import EngineError, JobError
from lengthwise.jobs import Job, JobOptions, JobResult
from lengthwise.pipeline import Pipeline
from lengthwise.types import Capabilities, ErrorInfo, Prepared, Request

NAMES = [f"r{i}" for i in range(20)]


class FlakyEngine(ReplayEngine):
    """Refuses every fourth request while `is_ill`, as a server with an outage does."""

    is_ill = True
    starts_left = 1000

    def prepare(self, requests: Sequence[Request]) -> list[Prepared | ErrorInfo]:
        refused = ErrorInfo("server_error", "The server is down.")
        prepared = super().prepare(requests)
        return [
            refused if self.is_ill and int(request.id[1:]) % 4 == 0 else one
            for request, one in zip(requests, prepared, strict=True)
        ]

    def start(self, *request: Any) -> None:
        self.starts_left -= 1
        if self.starts_left < 0:
            raise EngineError("The device is gone.")
        super().start(*request)


def pipeline(is_ill: bool, num_starts: int = 1000) -> Pipeline:
    engine = FlakyEngine(dict.fromkeys(NAMES, 5), ReplayConfig(Capabilities(max_running=1)))
    engine.is_ill, engine.starts_left = is_ill, num_starts
    return Pipeline(engine=engine, predictor="none", window=4)


@pytest.fixture
def options(tmp_path: Path) -> JobOptions:
    """Twenty requests of which the ill engine refuses five, and a row that is none."""
    lines = [json.dumps({"id": name, "prompt": "Hi."}) for name in NAMES]
    (tmp_path / "p.jsonl").write_text("\n".join([*lines, "no json"]))
    return JobOptions(tmp_path / "p.jsonl", tmp_path / "a.jsonl")


def run(options: JobOptions, is_ill: bool = False, num_starts: int = 1000) -> JobResult:
    with Job.open(options) as job, pipeline(is_ill, num_starts) as running:
        return job.run(running)


def failed(options: JobOptions) -> list[str]:
    rows = [json.loads(line) for line in options.answers.read_text().splitlines()]
    assert [row["id"] for row in rows] == [*NAMES, "21"], "every row once, in order"
    return [row["id"] for row in rows if "error" in row]


def test_a_done_job_answers_its_failed_rows_again(options: JobOptions) -> None:
    """Those rows only, and the answers are those of a job that never failed; a row that is no request stays one."""
    assert run(options, is_ill=True) == JobResult("done", 21, 21, 6, 0)
    assert failed(options) == ["r0", "r4", "r8", "r12", "r16", "21"]
    again = replace(options, retry_failed=True)
    with Job.open(again) as job, pipeline(is_ill=False) as running:
        assert not job.is_complete
        assert job.run(running) == JobResult("done", 21, 21, 1, 15)
        assert running.counts.num_requests == 6
    assert failed(options) == ["21"]
    num_lines = options.journal.read_bytes().count(b"\n")
    assert num_lines == 1 + 21 + 2 + 5 + 2, "header, rows, publishing, done, rows that failed, publishing, done"
    whole = replace(options, answers=options.answers.with_name("whole.jsonl"))
    run(whole)
    assert options.answers.read_bytes() == whole.answers.read_bytes()


def test_what_fails_again_stays_an_error(options: JobOptions) -> None:
    """Nothing is lost by trying; the same command may be given again."""
    run(options, is_ill=True)
    before = options.answers.read_bytes()
    assert run(replace(options, retry_failed=True), is_ill=True) == JobResult("done", 21, 21, 6, 15)
    assert options.answers.read_bytes() == before
    assert run(replace(options, retry_failed=True)).num_failed == 1


def test_with_nothing_failed_nothing_is_done(options: JobOptions) -> None:
    options.prompts.write_text(options.prompts.read_text().replace("\nno json", ""))
    assert run(options).num_failed == 0
    with Job.open(replace(options, retry_failed=True)) as job:
        assert job.is_complete


@pytest.mark.parametrize("is_retry_first", [True, False])
def test_killed_meanwhile_it_goes_on(options: JobOptions, is_retry_first: bool) -> None:
    """What was answered again is kept; with the option or without, the next run ends with every row once."""
    run(options, is_ill=True)
    again = replace(options, retry_failed=True)
    with pytest.raises(EngineError, match="gone"):
        run(again, num_starts=2)
    assert len(failed(options)) == 6, "until the end the former answers stay"
    assert run(again if is_retry_first else options).status == "done"
    assert len(failed(options)) == (1 if is_retry_first else 4)
    assert run(again).num_failed == 1


def test_interrupted_it_is_not_done(options: JobOptions) -> None:
    """Though every row stands in the journal, some are still to be answered again."""
    run(options, is_ill=True)
    again = replace(options, retry_failed=True)
    with Job.open(again) as job, pipeline(is_ill=False) as running:
        job.drain()
        assert job.run(running).status == "interrupted"
    assert run(again) == JobResult("done", 21, 21, 1, 15)


def test_an_open_job_answers_its_failed_rows_with_the_rest(options: JobOptions) -> None:
    with pytest.raises(EngineError, match="gone"):
        run(options, is_ill=True, num_starts=8)
    with Job.open(options) as job:
        job._journal.resume(job._journal.header.fingerprint)  # type: ignore[union-attr]
        num_failed = job._journal.num_failed
    assert num_failed > 0
    assert run(replace(options, retry_failed=True)) == JobResult("done", 21, 21, 1, 8)


def test_killed_before_it_was_marked_done(options: JobOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers are there and the journal does not know them yet: they are this job's, and are replaced."""

    def killed(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("lengthwise.journal.Journal.mark_done", killed)
        with pytest.raises(KeyboardInterrupt):
            run(options, is_ill=True)
    assert run(replace(options, retry_failed=True)).num_failed == 1
    assert failed(options) == ["21"]


def test_answers_that_were_changed_are_not_replaced(options: JobOptions) -> None:
    run(options, is_ill=True)
    options.answers.write_text("mine")
    with pytest.raises(JobError, match="was changed since"):
        run(replace(options, retry_failed=True))
    assert options.answers.read_text() == "mine"


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_every_format_is_written_anew(options: JobOptions, suffix: str) -> None:
    """The answers are assembled from the journal, whatever they look like."""
    options = replace(options, answers=options.answers.with_suffix(suffix))
    run(options, is_ill=True)
    before = options.answers.read_bytes()
    run(replace(options, retry_failed=True))
    assert options.answers.read_bytes() != before


def test_a_batch_without_errors_has_no_errors_file(options: JobOptions) -> None:
    """When all that failed is answered, the file of errors goes."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi."}]}
    call = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    options.prompts.write_text("\n".join(json.dumps({"custom_id": name, **call}) for name in NAMES))
    run(options, is_ill=True)
    errors = options.answers.with_name("a.errors.jsonl")
    assert errors.read_bytes().count(b"\n") == 5
    run(replace(options, retry_failed=True))
    assert not errors.exists()
    assert [json.loads(line)["custom_id"] for line in options.answers.read_text().splitlines()] == NAMES
    with Job.open(options) as job:
        assert job.is_complete


def test_it_may_follow_answers_that_were_given_out_as_completed(options: JobOptions) -> None:
    """Lines that went out stay until the end; then the file is in the order of the prompts."""
    run(replace(options, as_completed=True), is_ill=True)
    assert run(replace(options, retry_failed=True)).num_failed == 1
    assert failed(options) == ["21"]
