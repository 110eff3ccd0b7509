"""A job: each row once and in order, whatever happened before; nothing that is not its own is written over."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.errors import EngineError, InputError, JobError, UsageError
from lengthwise.jobs import Job, JobOptions, JobResult
from lengthwise.pipeline import Pipeline
from lengthwise.scheduling.arrival import ArrivalScheduler
from lengthwise.testing import NoisyOracle, recorded_lengths
from lengthwise.types import Capabilities, SamplingParams
from tests.jobs.breaking import BreakingEngine

LENGTHS = recorded_lengths(40)


class OtherModel(ReplayEngine):
    model = "another"


def pipeline(engine: type[ReplayEngine] = ReplayEngine, window: int = 4096) -> Pipeline:
    made = engine(LENGTHS, ReplayConfig(Capabilities(max_running=4)))
    predictor = NoisyOracle(LENGTHS, 0.5)
    return Pipeline(engine=made, predictor=predictor, scheduler=ArrivalScheduler(batch_size=4), window=window)


@pytest.fixture
def options(tmp_path: Path) -> JobOptions:
    """A job of 40 requests, a bad row before the sixth, and metadata in each."""
    lines = [json.dumps({"id": name, "prompt": f"Prompt {name}", "row": i}) for i, name in enumerate(LENGTHS)]
    lines.insert(5, "no json")
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    return JobOptions(tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl")


def run(options: JobOptions, made: Pipeline | None = None) -> JobResult:
    with Job.open(options) as job, made or pipeline() as running:
        return job.run(running)


def run_some(options: JobOptions, num: int) -> None:
    """Run until `num` requests are finished, then stop."""
    with Job.open(options) as job, pipeline() as running:

        class Stopping(Pipeline):
            def stream(self, requests: Any) -> Iterator[Any]:
                for position, completion in enumerate(running.stream(requests)):
                    if position == num:
                        return
                    yield completion

        job.run(Stopping(engine=running.engine, predictor=running.predictor, scheduler=ArrivalScheduler(batch_size=4)))


def answers(options: JobOptions) -> list[dict[str, Any]]:
    return [json.loads(line) for line in options.answers.read_text().split("\n")[:-1]]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestAnswers:
    """What stands in the answers file."""

    def test_each_row_once_in_input_order(self, options: JobOptions) -> None:
        """Every row has its own answer at its own place, the bad one an error."""
        result = run(options)
        assert result == JobResult("done", 41, 41, 1, 0)
        rows = answers(options)
        wanted = [*LENGTHS]
        wanted.insert(5, "6")
        assert [row["id"] for row in rows] == wanted
        for row in rows[:5] + rows[6:]:
            tokens = min(512, LENGTHS[row["id"]])
            assert row["text"] == f"{row['id']}: {tokens} tokens"
            assert row["usage"]["completion_tokens"] == tokens
            assert row["metadata"] == {"row": [*LENGTHS].index(row["id"])}

    def test_the_fields_of_a_line(self, options: JobOptions) -> None:
        """An answer and an error have exactly these fields."""
        run(options)
        good, bad = answers(options)[0], answers(options)[5]
        assert list(good) == ["id", "text", "finish_reason", "usage", "predicted_tokens", "metadata"]
        assert list(good["usage"]) == ["prompt_tokens", "completion_tokens", "recomputed_tokens"]
        assert list(good["predicted_tokens"]) == ["p50", "p90"]
        assert all(isinstance(value, int) for value in good["predicted_tokens"].values())
        assert list(bad) == ["id", "text", "finish_reason", "usage", "predicted_tokens", "error"]
        assert (bad["finish_reason"], bad["text"], bad["predicted_tokens"]) == ("error", "", None)
        assert bad["error"]["type"] == "invalid_json"
        assert bad["error"]["line"] == 6

    def test_a_request_that_the_engine_refuses_has_its_line(self, options: JobOptions) -> None:
        """An error from the engine names the line of the file, and the others go on."""
        with options.prompts.open("a") as file:
            file.write('\n{"id": "new", "prompt": "without a recorded length"}')
        assert run(options) == JobResult("done", 42, 42, 2, 0)
        assert answers(options)[-1]["error"] == {
            "type": "no_recorded_length",
            "message": "No length is recorded for request 'new'.",
            "line": 42,
        }

    def test_odd_metadata_comes_back_as_json(self, tmp_path: Path) -> None:
        """NaN is null, half a surrogate pair an escape, other text as it is: the file stays JSON in UTF-8."""
        (tmp_path / "p.jsonl").write_text(
            '{"id": "r1", "prompt": "x", "nan": [NaN, {"a": -Infinity}], "bad": "\\ud800", "text": "行\u2028"}\n'
            '{"id": "r2", "prompt": "x", "text": "行"}\n',
            encoding="utf-8",
        )
        options = JobOptions(tmp_path / "p.jsonl", tmp_path / "a.jsonl")
        run(options)
        first, second = options.answers.read_bytes().decode().split("\n")[:2]
        wanted = {"nan": [None, {"a": None}], "bad": "\ud800", "text": "行\u2028"}
        assert json.loads(first, parse_constant=lambda name: pytest.fail(name))["metadata"] == wanted
        assert "行" in second

    def test_what_is_nested_too_deep_to_be_written_stops_no_other_row(self, tmp_path: Path) -> None:
        """Metadata of 500 levels is an error row, and the file is written."""
        deep = "[" * 500 + "NaN" + "]" * 500
        (tmp_path / "p.jsonl").write_text(
            f'{{"id": "r1", "prompt": "x", "tree": {deep}}}\n{{"id": "r2", "prompt": "x"}}'
        )
        options = JobOptions(tmp_path / "p.jsonl", tmp_path / "a.jsonl")
        assert run(options).status == "done"
        first, second = answers(options)
        assert (first["error"]["type"], "metadata" in first) == ("invalid_json", False)
        assert second["finish_reason"] != "error"

    def test_only_the_answers_and_a_short_journal_are_left(self, options: JobOptions) -> None:
        """When the job is done, nothing temporary stays. The journal is one line, if no row failed."""
        run(options)
        assert names(options.answers.parent) == ["answers.jsonl", "answers.jsonl.journal", "prompts.jsonl"]
        assert options.journal.read_bytes().count(b"\n") == 1 + 41 + 2, "kept for --retry-failed"
        options.prompts.write_text(options.prompts.read_text().replace("no json\n", ""))
        run(replace(options, overwrite=True))
        assert options.journal.read_bytes().count(b"\n") == 1

    def test_while_it_runs_there_is_no_answers_file(self, options: JobOptions) -> None:
        """Answers appear whole or not at all."""
        run_some(options, 10)
        assert names(options.answers.parent) == ["answers.jsonl.journal", "prompts.jsonl"]


class TestResuming:
    """A job goes on where it stopped."""

    def test_what_is_finished_is_not_run_again(self, options: JobOptions) -> None:
        """The rest is run, and the answers equal those of an uninterrupted run."""
        run(replace(options, answers=options.answers.with_name("whole.jsonl")))
        run_some(options, 15)
        running = pipeline()
        result = run(options, running)
        assert result == JobResult("done", 41, 41, 1, 15)
        assert running.counts.num_requests == 26
        assert [(row["id"], row["text"]) for row in answers(options)] == [
            (row["id"], row["text"])
            for row in answers(replace(options, answers=options.answers.with_name("whole.jsonl")))
        ]

    def test_stop_ends_a_run_and_keeps_what_is_finished(self, options: JobOptions) -> None:
        """A stop, as Ctrl-C gives it, ends the run early with all that was finished on disk."""
        with Job.open(options) as job, pipeline() as running:
            append = job._journal.append

            def append_and_stop(*record: Any) -> None:
                append(*record)
                if len(job._journal) == 10:
                    job.stop()

            job._journal.append = append_and_stop  # type: ignore[method-assign]
            result = job.run(running)
        assert result.status == "interrupted"
        assert 10 <= result.num_finished < 41
        assert run(options).num_resumed == result.num_finished

    def test_draining_finishes_what_runs_and_starts_nothing_new(self, options: JobOptions) -> None:
        """Asked to drain, a run ends with every row recorded that was begun, and no other."""
        with Job.open(options) as job:
            started: list[str] = []

            class Draining(ReplayEngine):
                def start(self, request: Any, *rest: Any) -> None:
                    started.append(request.id)
                    super().start(request, *rest)
                    if len(started) == 9:
                        job.drain()

            with pipeline(Draining) as running:
                result = job.run(running)
            recorded = [json.loads(record.answer)["id"] for record in job._journal.in_turn()]
        assert result.status == "interrupted"
        assert sorted(recorded) == sorted({*started, "6"})
        assert len(started) < 40
        assert run(options).num_resumed == result.num_finished == len(recorded)

    def test_a_stop_before_the_first_step_counts(self, options: JobOptions) -> None:
        """Ctrl-C while the run begins is not lost: nothing is started."""
        with Job.open(options) as job, pipeline() as running:
            job.stop()
            assert job.run(running).num_finished == 0
            assert running.counts.num_finished == 0

    def test_prompts_that_change_while_they_are_read(self, options: JobOptions) -> None:
        """Between the first reading and the second: no answers file comes of two inputs."""
        with Job.open(options) as job, pipeline() as running:
            options.prompts.write_text(options.prompts.read_text().replace("Prompt r39", "Prompt r40"))
            with pytest.raises(JobError, match="was changed while it was read"):
                job.run(running)
        assert not options.answers.exists()

    @pytest.mark.parametrize("as_completed", [False, True])
    @pytest.mark.parametrize(
        "change",
        [
            lambda lines: [line.replace('"row": ', '"row": 1') for line in lines],
            lambda lines: [*lines[1:6], lines[0], *lines[6:]],
            lambda lines: [*lines, *(line.replace('"r', '"more') for line in lines)],
            lambda lines: lines[:20],
            lambda lines: [*lines[:9], lines[3], *lines[9:]],
        ],
        ids=["other prompts", "other order", "more", "fewer", "doubled"],
    )
    def test_prompts_that_are_put_back(self, options: JobOptions, change: Callable, as_completed: bool) -> None:
        """Rows that were read from other lines are answered again, and no other: the answers are those of a file that
        was never changed."""
        options = replace(options, as_completed=as_completed)
        whole = replace(options, answers=options.answers.with_name("whole.jsonl"))
        run(whole)
        before = options.prompts.read_text()
        with Job.open(options) as job, pipeline(window=4) as running:
            options.prompts.write_text("\n".join(change(before.split("\n"))))
            with pytest.raises(JobError, match=r"was changed while it was read.*Put it back"):
                job.run(running)
            assert job.num_finished > 8
        options.prompts.write_text(before)
        with Job.open(options) as job, pipeline() as running:
            job.drain()
            assert job.run(running).status == "interrupted", "though a record of every row may be there"
        running = pipeline()
        result = run(options, running)
        assert (result.status, result.num_finished) == ("done", 41)
        assert result.num_resumed in (41 - running.counts.num_requests, 41 - running.counts.num_requests - 1)
        assert sorted(options.answers.read_bytes().splitlines()) == sorted(whole.answers.read_bytes().splitlines())

    def test_a_broken_engine_says_how_to_go_on(self, options: JobOptions) -> None:
        """EngineError passes, with what is safe; the same command goes on with the rest."""
        with pytest.raises(
            EngineError, match=r"The device is gone\. \d+ of 41 .* are finished and safe; the same command"
        ):
            run(options, pipeline(BreakingEngine))
        result = run(options)
        assert result.status == "done"
        assert 0 < result.num_resumed < 40

    def test_killed_between_the_answers_and_the_journal(self, options: JobOptions, monkeypatch: Any) -> None:
        """The answers are in place, the journal is not yet marked done: the next run finds that, and runs nothing."""

        def killed(*args: Any, **options: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr("lengthwise.journal.Journal.mark_done", killed)
            with pytest.raises(KeyboardInterrupt):
                run(options)
        before = options.answers.read_bytes()
        running = pipeline()
        assert run(options, running) == JobResult("done", 41, 41, 1, 41)
        assert running.counts.num_requests == 0
        assert options.answers.read_bytes() == before

    def test_only_the_predicting_and_scheduling_may_change(self, options: JobOptions) -> None:
        """A job may be resumed with another predictor, another batch size and another window."""
        run_some(options, 10)
        options = replace(options, window=3)
        other = Pipeline(
            engine=ReplayEngine(LENGTHS),
            predictor=NoisyOracle(LENGTHS, 0.0),
            scheduler=ArrivalScheduler(batch_size=4),
            window=options.window,
        )
        assert run(options, other).num_resumed == 10

    @pytest.mark.parametrize(
        "change",
        [
            lambda options: replace(options, max_tokens=64),
            lambda options: replace(options, seed=1),
            lambda options: replace(options, sampling=SamplingParams(temperature=0.5)),
            lambda options: replace(options, input_format="text"),
            lambda options: replace(options, output_format="openai-batch"),
            lambda options: replace(options, prompt_field="question"),
            lambda options: replace(options, chat_template="vicuna"),
            lambda options: options.prompts.write_text('{"prompt": "x"}') and options,
        ],
        ids=[
            "max_tokens",
            "seed",
            "temperature",
            "input_format",
            "output_format",
            "prompt_field",
            "chat_template",
            "input",
        ],
    )
    def test_another_job_is_refused_before_a_model_is_loaded(
        self, options: JobOptions, change: Callable[[JobOptions], JobOptions], request: pytest.FixtureRequest
    ) -> None:
        """What determines the answers must not change between run and resume: refused when the job is opened."""
        run_some(options, 10)
        changed = change(options)
        name = request.node.callspec.id
        told = "input was changed" if name == "input" else f"{name} was .* and is .* now"
        with pytest.raises(JobError, match=told):
            Job.open(changed)
        with Job.open(replace(changed, overwrite=True)) as job:
            assert job.num_finished == 0

    def test_overwriting_keeps_what_is_there_until_there_is_a_model(self, options: JobOptions) -> None:
        """A job that is opened to be overwritten and never run has cost neither its journal nor its answers."""
        run_some(options, 10)
        with Job.open(replace(options, overwrite=True, seed=5)) as job:
            assert job.num_finished == 0
        assert run(options) == JobResult("done", 41, 41, 1, 10)
        before = {path: path.read_bytes() for path in options.answers.parent.iterdir()}
        with Job.open(replace(options, overwrite=True, seed=5)) as job:
            assert not job.is_complete
        assert before == {path: path.read_bytes() for path in options.answers.parent.iterdir()}
        assert run(replace(options, overwrite=True, seed=5)) == JobResult("done", 41, 41, 1, 0)

    def test_another_model_is_refused(self, options: JobOptions) -> None:
        """Answers of two models are never mixed."""
        run_some(options, 10)
        with pytest.raises(JobError, match="model was 'replay' and is 'another' now"):
            run(options, pipeline(OtherModel))


class TestDone:
    """A job that is done."""

    def test_the_same_command_again_does_nothing(self, options: JobOptions) -> None:
        """No request is run, nothing is written, and the result is that of the first time."""
        run(options)
        before = {path: path.stat().st_mtime_ns for path in options.answers.parent.iterdir()}
        with Job.open(options) as job:
            assert job.is_complete
            assert job.finished_result() == JobResult("already_done", 41, 41, 1, 41)
        running = pipeline()
        assert run(options, running).status == "already_done"
        assert running.counts.num_requests == 0
        assert before == {path: path.stat().st_mtime_ns for path in options.answers.parent.iterdir()}

    def test_a_model_under_another_name_is_loaded_to_see(self, options: JobOptions) -> None:
        """Asked for with another name, a job is known as done only by the identity of the model."""
        run(options)
        with Job.open(replace(options, model="elsewhere")) as job:
            assert not job.is_complete
        with pytest.raises(JobError, match="model was"):
            run(replace(options, model="elsewhere"), pipeline(OtherModel))

    def test_answers_that_were_changed_are_left_alone(self, options: JobOptions) -> None:
        """Edited answers are neither called done nor written over."""
        run(options)
        options.answers.write_text("mine")
        with pytest.raises(JobError, match="was changed since"):
            Job.open(options)
        assert options.answers.read_text() == "mine"

    def test_a_full_disk_at_the_end_keeps_the_answers(self, options: JobOptions, monkeypatch: Any) -> None:
        """Answers that can't be put into their place are an error with a way out, and stay in the journal."""

        def full(*args: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("os.replace", full)
            with pytest.raises(JobError, match=r"No space left.*safe in the journal; make room"):
                run(options)
        assert names(options.answers.parent) == ["answers.jsonl.journal", "prompts.jsonl"]
        assert run(options) == JobResult("done", 41, 41, 1, 41)

    def test_removed_answers_are_made_again(self, options: JobOptions) -> None:
        """Whoever removes the answers wants them again, with whatever settings, where the journal has them no more."""
        options.prompts.write_text(options.prompts.read_text().replace("no json\n", ""))
        run(options)
        options.answers.unlink()
        before = options.journal.read_bytes()
        with Job.open(replace(options, seed=5)) as job:
            assert not job.is_complete
        assert options.journal.read_bytes() == before, "nothing is thrown away before there is an answer"
        assert run(replace(options, seed=5)) == JobResult("done", 40, 40, 0, 0)

    @pytest.mark.parametrize("output_format", ["jsonl", "openai-batch"])
    def test_answers_that_were_moved_are_written_again(self, options: JobOptions, output_format: Any) -> None:
        """While rows failed the journal has all answers: it is not thrown away, least of all for other settings."""
        options = replace(options, output_format=output_format)
        run(options)
        before = options.answers.read_bytes()
        options.answers.rename(options.answers.with_name("moved.jsonl"))
        with pytest.raises(JobError, match="belongs to a job with other settings"):
            Job.open(replace(options, seed=5))
        running = pipeline()
        assert run(options, running) == JobResult("done", 41, 41, 1, 41)
        assert running.counts.num_requests == 0
        assert options.answers.read_bytes() == before
        options.answers.unlink()
        assert run(replace(options, retry_failed=True)).num_failed == 1

    def test_a_job_may_be_renamed(self, options: JobOptions) -> None:
        """Answers and journal together: it is done under its new name."""
        run(options)
        renamed = replace(options, answers=options.answers.with_name("new.jsonl"))
        options.answers.rename(renamed.answers)
        options.journal.rename(renamed.journal)
        with Job.open(renamed) as job:
            assert job.is_complete

    def test_a_model_that_was_not_named_is_asked_for(self, options: JobOptions) -> None:
        """A server serves one today and another tomorrow: only who names the model is told at once that all is done."""
        options = replace(options, model=None)
        run(options)
        with Job.open(options) as job:
            assert not job.is_complete
        with pytest.raises(JobError, match="model was"):
            run(options, pipeline(OtherModel))
        assert run(options).status == "already_done"


class TestForeignFiles:
    """What this job did not make is never written over without being told to."""

    def test_answers_of_something_else(self, options: JobOptions) -> None:
        """Refused before any work; with overwrite made anew."""
        options.answers.write_text("precious")
        with pytest.raises(JobError, match=r"not made by this job.*--overwrite"):
            Job.open(options)
        assert names(options.answers.parent) == ["answers.jsonl", "prompts.jsonl"], "no journal is left behind"
        assert run(replace(options, overwrite=True)).status == "done"

    def test_answers_that_appear_beside_an_open_job(self, options: JobOptions) -> None:
        """A file that comes up between two runs, or during one, is not this job's. Nobody is told to throw away what
        the journal has."""
        run_some(options, 10)
        options.answers.write_text("precious")
        with pytest.raises(JobError, match="not made by this job") as refused:
            Job.open(options)
        assert "--overwrite" not in str(refused.value)
        options.answers.unlink()
        with Job.open(options) as job, pipeline() as running:
            options.answers.write_text("late")
            with pytest.raises(JobError, match="not made by this job") as refused:
                job.run(running)
        assert "--overwrite" not in str(refused.value)
        assert options.answers.read_text() == "late"
        assert names(options.answers.parent) == ["answers.jsonl", "answers.jsonl.journal", "prompts.jsonl"]
        options.answers.unlink()
        assert run(options).num_resumed == 41, "and nothing that was finished is lost"

    def test_a_second_process_is_refused(self, options: JobOptions) -> None:
        """One job, one process."""
        with Job.open(options), pytest.raises(JobError, match="Another process"):
            Job.open(options)

    def test_a_link_is_kept(self, options: JobOptions, tmp_path: Path) -> None:
        """Answers go where a link points."""
        (tmp_path / "disk").mkdir()
        options.answers.symlink_to(tmp_path / "disk" / "a.jsonl")
        run(options)
        assert options.answers.is_symlink()
        assert len(answers(options)) == 41

    def test_a_link_to_itself_is_no_traceback(self, options: JobOptions) -> None:
        """It points nowhere; answers take its place."""
        options.answers.symlink_to(options.answers)
        assert run(options).status == "done"


class TestRefusedAsAWhole:
    """Jobs that can't be done are refused before a model is loaded, and leave nothing behind."""

    def test_output(self, options: JobOptions, tmp_path: Path) -> None:
        """Missing folder, directory, device, the prompts themselves."""
        for answers_path, said in (
            (tmp_path / "nowhere" / "a.jsonl", "does not exist"),
            (tmp_path, "no regular file"),
            (Path("/dev/null"), "no regular file"),
            (options.prompts, "written over the prompts"),
            (tmp_path / ("a" * 300), "too long"),
            (Path("/proc/answers.jsonl"), r"can't be (opened|written)"),
        ):
            with pytest.raises(UsageError, match=said):
                Job.open(replace(options, answers=answers_path))
        assert names(tmp_path) == ["prompts.jsonl"]

    def test_the_journal_must_not_be_the_prompts(self, tmp_path: Path) -> None:
        """Prompts that happen to be called like the journal are left alone."""
        prompts = tmp_path / "a.journal"
        prompts.write_text("Hello")
        with pytest.raises(UsageError, match="written over the prompts"):
            Job.open(JobOptions(prompts, tmp_path / "a"))
        assert prompts.read_text() == "Hello"

    def test_input(self, options: JobOptions, tmp_path: Path) -> None:
        """Missing prompts, doubled ids."""
        with pytest.raises(InputError, match="does not exist"):
            Job.open(replace(options, prompts=tmp_path / "nowhere"))
        with pytest.raises(InputError, match="too long"):
            Job.open(replace(options, prompts=tmp_path / ("p" * 300)))
        options.prompts.write_text('{"id": 1, "prompt": "x"}\n' * 2)
        with pytest.raises(InputError, match="lines 1 and 2"):
            Job.open(options)
        assert names(tmp_path) == ["prompts.jsonl"]

    def test_values(self, options: JobOptions) -> None:
        """Options are checked when they are made."""
        with pytest.raises(UsageError, match="max_tokens is 0"):
            replace(options, max_tokens=0)
        for nameless in (".", "", "/"):
            with pytest.raises(UsageError, match="names no file"):
                replace(options, answers=Path(nameless))
        for field, value, said in (
            ("input_format", "csv", "input format is 'csv'"),
            ("output_format", "csv", "output format is 'csv'"),
            ("window", 0, "window is 0"),
            ("answers", Path("-"), "need a file"),
        ):
            with pytest.raises(UsageError, match=said):
                replace(options, **{field: value})
        for together in (
            {"as_completed": True, "retry_failed": True},
            {"overwrite": True, "retry_failed": True},
            {"answers": Path("-"), "as_completed": True, "overwrite": True},
        ):
            with pytest.raises(UsageError, match=r"--retry-failed|--overwrite"):
                replace(options, **together)  # type: ignore[arg-type]


def test_a_file_of_bad_rows_only_is_a_file_of_errors(tmp_path: Path) -> None:
    """With no row that can be run, the answers are errors, one a row."""
    (tmp_path / "p.jsonl").write_text("no\nyes\n")
    options = JobOptions(tmp_path / "p.jsonl", tmp_path / "a.jsonl")
    assert run(options) == JobResult("done", 2, 2, 2, 0)
    assert [row["error"]["line"] for row in answers(options)] == [1, 2]


def test_seeds_come_from_the_job_and_the_id(options: JobOptions) -> None:
    """A request without a seed gets the same one in every run of the job, whatever is resumed."""
    options = replace(options, sampling=SamplingParams(temperature=1.0))
    seen: list[dict[str, int | None]] = []
    for num in (0, 12):
        if num:
            run_some(options, num)

        class Watching(ReplayEngine):
            def start(self, request: Any, *rest: Any) -> None:
                seen[-1][request.id] = request.sampling.seed
                super().start(request, *rest)

        seen.append({})
        target = replace(options, answers=options.answers.with_name("other.jsonl")) if not num else options
        run(target, pipeline(Watching))
    whole, resumed = seen
    assert len({*whole.values()}) == 40
    assert resumed.items() <= whole.items()
    assert len(resumed) == 29, "11 requests and the bad row were finished"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a program's peak of memory")
def test_memory_does_not_grow_with_rows() -> None:
    """A job of 30,000 rows takes the memory of one of 9,000: what is in the window, and not the file."""
    program = Path(__file__).parents[2] / "benchmarks" / "job_overhead.py"

    def peak_mib(num_rows: int) -> float:
        done = subprocess.run([sys.executable, program, "--one", str(num_rows)], capture_output=True, check=True)
        return float(json.loads(done.stdout)["peak_mib"])

    assert peak_mib(30_000) - peak_mib(9_000) < 5, "21,000 rows more would be 9 MB, if only their lines were held"


def test_prompts_may_be_moved_and_compressed(options: JobOptions) -> None:
    """It is their content that counts."""
    run_some(options, 10)
    moved = options.prompts.with_name("moved.jsonl.gz")
    moved.write_bytes(gzip.compress(options.prompts.read_bytes()))
    options.prompts.unlink()
    assert run(replace(options, prompts=moved)).num_resumed == 10
