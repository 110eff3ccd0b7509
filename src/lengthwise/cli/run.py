"""`lengthwise run PROMPTS -o ANSWERS`: a file of prompts in, a file of answers out."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from lengthwise import __version__
from lengthwise.cli import engines as e
from lengthwise.cli import options as o
from lengthwise.cli.console import listen, print_line, quiet_transformers, reason, say
from lengthwise.cli.interrupt import Interrupt
from lengthwise.cli.progress import Watch, duration
from lengthwise.cli.report import Report, check_report, look_on, save_report
from lengthwise.engines.transformers import ModelOptions, RunOptions
from lengthwise.errors import JobError, UsageError, counted
from lengthwise.jobs import Job, JobOptions, JobResult, PassingJob, formats
from lengthwise.loop import Counts
from lengthwise.pipeline import Pipeline
from lengthwise.protocols import LengthPredictor

EXIT_UNREAD = 141  # what a shell gives for a process that wrote to a closed pipe
HOW_TO_GO_ON = "Run the same command again to go on."

_JOB = "Job"
_DEFAULTS = JobOptions(Path("-"), Path("answers"))
_ASKED = e.AskedOfServers()

Answers = Annotated[
    Path,
    typer.Option(
        "-o",
        "--output",
        metavar="ANSWERS",
        help="Where the answers go, in input order; - is stdout, with --as-completed.",
    ),
]
OutputFormat = Annotated[
    formats.OutputFormat,
    typer.Option(help="Format of ANSWERS; auto: by its suffix, else what PROMPTS has.", rich_help_panel=_JOB),
]
AsCompleted = Annotated[
    bool,
    typer.Option(
        "--as-completed", help="Write each answer as soon as it is there, in that order.", rich_help_panel=_JOB
    ),
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Answer again the rows that ended as errors.", rich_help_panel=_JOB)
]
Window = Annotated[
    int,
    typer.Option(help="Requests that are read ahead and scheduled; memory holds no more.", rich_help_panel=_JOB),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Throw away existing answers and an unfinished job, and start again.",
        rich_help_panel=_JOB,
    ),
]


@dataclass(frozen=True, slots=True)
class RunSettings:
    """All that one `run` was asked to do."""

    job: JobOptions
    engine: e.EngineChoice
    predictor: str
    schedule: str
    is_quiet: bool
    report: Path | None = None  # where the run is shown


def run(
    prompts: o.Prompts,
    output: Answers,
    model: o.Model = o.MODEL.model,
    revision: o.Revision = o.MODEL.revision,
    dtype: o.Dtype = o.MODEL.dtype,
    device: o.Device = o.MODEL.device,
    device_map: o.DeviceMap = o.MODEL.device_map,
    adapter: o.Adapter = o.MODEL.adapter,
    quantization: o.Quantization = o.MODEL.quantization,
    chat_template: o.ChatTemplate = o.MODEL.chat_template,
    trust_remote_code: o.TrustRemoteCode = o.MODEL.trust_remote_code,
    engine: e.EngineOption = "transformers",
    base_url: e.BaseUrl = _ASKED.base_url,
    api_key_env: e.ApiKeyEnv = _ASKED.api_key_env,
    concurrency: e.Concurrency = _ASKED.concurrency,
    priority: e.PriorityOption = _ASKED.priority,
    timeout: e.Timeout = _ASKED.timeout,
    max_tokens_field: e.MaxTokensFieldOption = _ASKED.max_tokens_field,
    max_tokens: o.MaxTokens = o.RUN.max_tokens,
    temperature: o.Temperature = o.SAMPLING.temperature,
    top_p: o.TopP = o.SAMPLING.top_p,
    top_k: o.TopK = o.SAMPLING.top_k,
    stop: o.Stop = None,
    seed: o.Seed = 0,
    predictor: o.Predictor = "auto",
    schedule: o.ScheduleOption = "default",
    batch_size: o.BatchSize = o.RUN.batch_size,
    input_format: o.InputFormat = "auto",
    output_format: OutputFormat = _DEFAULTS.output_format,
    prompt_field: o.PromptField = _DEFAULTS.prompt_field,
    as_completed: AsCompleted = _DEFAULTS.as_completed,
    retry_failed: RetryFailed = _DEFAULTS.retry_failed,
    window: Window = _DEFAULTS.window,
    overwrite: Overwrite = _DEFAULTS.overwrite,
    report: Report = None,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Answer a file of prompts. Killed, it goes on where it stopped: run the same command again."""
    model_options = ModelOptions(
        model, revision, dtype, device, device_map, adapter, quantization, chat_template, None, trust_remote_code
    )
    asked = e.AskedOfServers(base_url, api_key_env, concurrency, priority, timeout, max_tokens_field)
    choice = e.choose_engine(engine, model_options, RunOptions(max_tokens=max_tokens, batch_size=batch_size), asked)
    job_options = JobOptions(
        prompts=prompts,
        answers=output,
        input_format=input_format,
        output_format=output_format,
        prompt_field=prompt_field,
        sampling=o.sampling_params(temperature, top_p, top_k, stop),
        max_tokens=max_tokens,
        seed=seed,
        chat_template=e.template_digest(chat_template),
        model=asked_for(choice),
        window=window,
        as_completed=as_completed,
        retry_failed=retry_failed,
        overwrite=overwrite,
    )
    check_report(report, prompts, output)
    return run_job(RunSettings(job_options, choice, predictor, schedule, quiet, report), json_, _open, RunReport)


def asked_for(choice: e.EngineChoice) -> str | None:
    """The model as it was asked for; None where a server is to say what it serves."""
    return None if choice.server is not None and choice.server.model is None else e.asked_for(choice)


def run_job(
    settings: RunSettings,
    is_json: bool,
    open_job: Callable[[JobOptions], Job | PassingJob],
    report_class: type[RunReport],
) -> int:
    """Answer a job, and say what came of it in the words of `report_class`; the exit code."""
    if is_json and settings.job.has_no_journal:
        raise UsageError("The answers and the line of --json would both go to standard output; give a file with -o.")
    if is_json and sys.stdout is None:
        raise UsageError("Standard output is closed, and the line of --json would go there; leave --json out.")
    listen(settings.is_quiet)
    with Interrupt() as interrupt:
        try:
            with open_job(settings.job) as job:
                report = _report(job, settings, interrupt, report_class)
            interrupt.settle()
        except (KeyboardInterrupt, Exception) as error:
            # A module that was being loaded may have made another error of it.
            if not (interrupt.has_raised or isinstance(error, KeyboardInterrupt)):
                raise
            kept = "" if settings.job.has_no_journal else f"; what is finished is kept. {HOW_TO_GO_ON}"
            say(f"Interrupted{kept or '.'}")
            return interrupt.exit_code
        if not settings.is_quiet:
            say(report.sentence(settings.job))
        elif report.result.num_failed:
            say(report.failures)
        if is_json and not _print_json(report.to_json(settings)):
            return EXIT_UNREAD
    return interrupt.exit_code if report.result.status == "interrupted" else report.exit_code


def _print_json(content: dict[str, Any]) -> bool:
    """False if nobody reads it."""
    try:
        print_line(json.dumps(content))
    except BrokenPipeError:
        return False
    except (OSError, ValueError) as error:
        raise JobError(f"The line of --json can't be written to standard output ({reason(error)}).") from error
    return True


def _open(options: JobOptions) -> Job | PassingJob:
    return PassingJob.open(options, _writing_to_stdout()) if options.has_no_journal else Job.open(options)


def _writing_to_stdout() -> Callable[[bytes], None]:
    """Writes at once, past Python's own buffer: when the reader is gone, nothing is left in it to fail once more. To a
    descriptor of its own: whatever becomes of stdout, answers go where they went at first."""
    try:
        descriptor = os.dup(sys.stdout.fileno())
    except (OSError, ValueError, AttributeError) as error:  # AttributeError: there is no stdout
        raise UsageError("Standard output is closed, so answers can't go there; give a file with -o.") from error

    def write(line: bytes) -> None:
        try:
            written = os.write(descriptor, line)
            while written < len(line):
                written += os.write(descriptor, line[written:])
        except BrokenPipeError:
            raise
        except OSError as error:
            raise JobError(
                f"Standard output can't be written ({reason(error)}), so answers are lost from here on. Give a file "
                "with -o: a job whose answers go to one goes on where it stopped."
            ) from error

    return write


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run did, for people and for programs."""

    result: JobResult
    counts: Counts
    wall_s: float
    engine: dict[str, Any]
    errors: Path | None  # the file of failed rows, where they have one of their own
    learned: dict[str, Any] | None = None  # what the run taught itself, where nothing was known of the model

    @property
    def exit_code(self) -> int:
        """1 if some rows failed, in this run or before: it is the answers file that the code speaks of."""
        if self.result.status == "unread":
            return EXIT_UNREAD
        return 1 if self.result.num_failed else 0

    @property
    def num_answered(self) -> int:
        """Requests that ended in this run."""
        return self.counts.num_finished

    @property
    def failures(self) -> str:
        """All that is said where nothing but errors is to be said."""
        return f"{counted(self.result.num_finished, 'row')}, {self.failed_rows}."

    @property
    def failed_rows(self) -> str:
        where = "`error` says why" if self.errors is None else f"{self.errors} says why"
        return f"{self.result.num_failed:,} of them failed ({where})"

    def sentence(self, job: JobOptions) -> str:
        result = self.result
        failed = f", {self.failed_rows}" if result.num_failed else ""
        if result.status == "already_done":
            mend = " --retry-failed answers those again that are requests." if failed else ""
            rows = counted(result.num_finished, "row")
            return f"{job.answers} is already complete: {rows}{failed}. Nothing was done.{mend}"
        if result.status == "unread":
            return f"Whoever read the answers is gone: stopped after {counted(result.num_finished, 'row')}."
        if result.status == "interrupted":
            of = "" if result.num_requests is None else f" of {result.num_requests:,}"
            go_on = "" if job.has_no_journal else f" {HOW_TO_GO_ON}"
            return f"Interrupted: {result.num_finished:,}{of} rows are finished.{go_on}"
        rate = f"{self.counts.completion_tokens:,} tokens in {duration(self.wall_s)}"
        before = f", {result.num_resumed:,} from before" if result.num_resumed else ""
        return f"{_place_of(job)}: {counted(result.num_finished, 'row')}{before}{failed}; {rate}."

    def to_json(self, settings: RunSettings) -> dict[str, Any]:
        """Rows of the whole job; tokens and times of this run."""
        return {
            "status": self.result.status,
            "answers": str(settings.job.answers),
            "requests": self.result.num_requests,
            "finished": self.result.num_finished,
            "failed": self.result.num_failed,
            "resumed": self.result.num_resumed,
            "requests_per_s": round(self.num_answered / self.wall_s, 3) if self.wall_s else 0.0,
            "completion_tokens": self.counts.completion_tokens,
            "recomputed_tokens": self.counts.recomputed_tokens,
            "wall_s": round(self.wall_s, 3),
            "predict_s": round(self.counts.predict_s, 3),
            "predictor": settings.predictor,
            "learned": self.learned,
            "schedule": settings.schedule,
            "engine": self.engine,
            "version": __version__,
        }


def _place_of(job: JobOptions) -> str:
    return "Standard output" if job.has_no_journal else str(job.answers)


def _report(
    job: Job | PassingJob, settings: RunSettings, interrupt: Interrupt, report_class: type[RunReport]
) -> RunReport:
    if isinstance(job, PassingJob) or not job.is_complete:
        return _answer(job, settings, interrupt, report_class)
    _check_folders(job, settings.engine)
    if settings.report is not None:
        say("Nothing was run, so there is no report.")
    return report_class(job.finished_result(), Counts(), 0.0, {"model": job.options.model}, job.errors)


def _check_folders(job: Job, choice: e.EngineChoice) -> None:
    """Raise JobError if what lies in the model's or the adapter's folder is no longer what answered the job."""
    if choice.server is None and (e.is_folder(choice.model.model) or e.is_folder(choice.model.adapter)):
        quiet_transformers()
        from lengthwise.engines.transformers.loading import identify_model

        job.check_model(identify_model(choice.model))


def _answer(
    job: Job | PassingJob, settings: RunSettings, interrupt: Interrupt, report_class: type[RunReport]
) -> RunReport:
    with open_pipeline(settings) as pipeline:
        record = look_on(pipeline, settings.report)
        watch = Watch(lambda: pipeline.counts, lambda: job.num_finished, job.num_rows, settings.is_quiet)
        started_s = time.monotonic()
        try:
            with interrupt.draining(job.drain), watch:
                result = job.run(pipeline)
            if result.status == "done":
                interrupt.settle()
        finally:
            if settings.job.overwrite and job.num_finished and not job.is_complete:
                say("Leave --overwrite out to go on: with it, what is finished by now is thrown away, too.")
        wall_s = time.monotonic() - started_s
        if record is not None and settings.report is not None and result.status == "done":
            name, quiet = str(settings.job.prompts), settings.is_quiet
            save_report(record, pipeline, settings.schedule, name, wall_s, settings.report, is_quiet=quiet)
        facts, learned = _engine_facts(pipeline), _what_was_learned(pipeline.predictor)
        return report_class(result, pipeline.counts, wall_s, facts, job.errors, learned)


def open_pipeline(settings: RunSettings) -> Pipeline:
    """Load the predictor, then open the engine, and put the pipeline together. Takes seconds: everything cheap was
    checked before."""
    from lengthwise.predictors.saved import load_predictor, needs_backbone

    waits_for_engine = settings.predictor in ("auto", "none") or needs_backbone(settings.predictor)
    predictor = settings.predictor if waits_for_engine else load_predictor(settings.predictor)
    return Pipeline(
        engine=e.open_engine(settings.engine),
        predictor=predictor,
        scheduler=settings.schedule,
        seed=settings.job.seed,
        window=settings.job.window,
    )


def _what_was_learned(predictor: LengthPredictor) -> dict[str, Any] | None:
    from lengthwise.predictors.cold_start.predictor import ColdStartPredictor

    return predictor.report() if isinstance(predictor, ColdStartPredictor) else None


def _engine_facts(pipeline: Pipeline) -> dict[str, Any]:
    """The engine in words and numbers; engines that describe themselves say device, loop and measured sizes."""
    engine = pipeline.engine
    return {
        "model": engine.model,
        "description": getattr(engine, "description", type(engine).__name__),
        "max_running": engine.capabilities.max_running,
        "kv_tokens": engine.capabilities.kv_tokens if math.isfinite(engine.capabilities.kv_tokens) else None,
        "predictor": type(pipeline.predictor).__name__,
    }
