"""`lengthwise run PROMPTS -o ANSWERS`: a file of prompts in, a file of answers out."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from lengthwise import __version__
from lengthwise.cli import options as o
from lengthwise.cli.console import listen, quiet_transformers, say
from lengthwise.cli.interrupt import stopping
from lengthwise.cli.progress import Watch, duration
from lengthwise.engines.transformers import ModelOptions, RunOptions
from lengthwise.errors import ModelError
from lengthwise.jobs import Job, JobOptions, JobResult
from lengthwise.loop import Counts
from lengthwise.pipeline import Pipeline

EXIT_CODE = {"done": 0, "already_done": 0, "interrupted": 130}
HOW_TO_GO_ON = "Run the same command again to go on."

Answers = Annotated[
    Path, typer.Option("-o", "--output", metavar="ANSWERS", help="Where the answers go: JSONL, in input order.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Throw away existing answers and an unfinished job, and start again.")
]


@dataclass(frozen=True, slots=True)
class RunSettings:
    """All that one `run` was asked to do."""

    job: JobOptions
    model: ModelOptions
    engine: RunOptions
    predictor: str
    schedule: str
    is_quiet: bool


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
    overwrite: Overwrite = False,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Answer a file of prompts. Killed, it goes on where it stopped: run the same command again."""
    model_options = ModelOptions(
        model, revision, dtype, device, device_map, adapter, quantization, chat_template, None, trust_remote_code
    )
    job_options = JobOptions(
        prompts=prompts,
        answers=output,
        input_format=input_format,
        sampling=o.sampling_params(temperature, top_p, top_k, stop),
        max_tokens=max_tokens,
        seed=seed,
        chat_template=_template(chat_template),
        model=asked_for(model_options),
        overwrite=overwrite,
    )
    engine_options = RunOptions(max_tokens=max_tokens, batch_size=batch_size)
    settings = RunSettings(job_options, model_options, engine_options, predictor, schedule, quiet)
    return _run(settings, json_)


def asked_for(model: ModelOptions) -> str:
    """The model as it was asked for: equal texts are the same model, as far as names can say it. The bundled one is
    that of this version."""
    place = ["bundled", __version__] if model.model is None else _place(model.model)
    adapter = None if model.adapter is None else _place(model.adapter)
    return json.dumps([place, model.revision, adapter, model.quantization, _template(model.chat_template)])


def _place(name: str) -> str:
    return os.path.realpath(os.path.expanduser(name)) if _is_folder(name) else name


def _is_folder(name: str | None) -> bool:
    return name is not None and os.path.isdir(os.path.expanduser(name))


def _template(chosen: str) -> str | None:
    """A chat template by its name, a file by its content; None for the model's own."""
    if chosen in ("auto", "none", "vicuna"):
        return None if chosen == "auto" else chosen
    try:
        return f"sha256:{hashlib.sha256(Path(chosen).read_bytes()).hexdigest()}"
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The chat template {chosen!r} can't be read ({error}); it may be auto, none, vicuna or a Jinja file."
        ) from error


def _run(settings: RunSettings, is_json: bool) -> int:
    listen(settings.is_quiet)
    try:
        with Job.open(settings.job) as job:
            if job.is_complete:
                _check_folders(job, settings.model)
            report = _report_of_done(job) if job.is_complete else _answer(job, settings)
    except KeyboardInterrupt:
        say(f"Interrupted; what is finished is kept. {HOW_TO_GO_ON}")
        return EXIT_CODE["interrupted"]
    if not settings.is_quiet:
        say(report.sentence(settings.job.answers))
    if is_json:
        typer.echo(json.dumps(report.to_json(settings)))
    return report.exit_code


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run did, for people and for programs."""

    result: JobResult
    counts: Counts
    wall_s: float
    engine: dict[str, Any]

    @property
    def exit_code(self) -> int:
        """1 if some rows failed, in this run or before: it is the answers file that the code speaks of."""
        return EXIT_CODE[self.result.status] or (1 if self.result.num_failed else 0)

    @property
    def num_answered(self) -> int:
        """Requests that ended in this run."""
        return self.counts.num_finished

    def sentence(self, answers: Path) -> str:
        result = self.result
        failed = f", {result.num_failed:,} of them failed (`error` says why)" if result.num_failed else ""
        if result.status == "already_done":
            mend = " To answer failed rows, put them, mended, into a file of their own." if failed else ""
            return f"{answers} is already complete: {result.num_requests:,} rows{failed}. Nothing was done.{mend}"
        if result.status == "interrupted":
            return f"Interrupted: {result.num_finished:,} of {result.num_requests:,} rows are finished. {HOW_TO_GO_ON}"
        rate = f"{self.counts.completion_tokens:,} tokens in {duration(self.wall_s)}"
        before = f", {result.num_resumed:,} from before" if result.num_resumed else ""
        return f"{answers}: {result.num_requests:,} rows{before}{failed}; {rate}."

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
            "schedule": settings.schedule,
            "engine": self.engine,
            "version": __version__,
        }


def _check_folders(job: Job, model: ModelOptions) -> None:
    """Raise JobError if what lies in the model's or the adapter's folder is no longer what answered the job."""
    if _is_folder(model.model) or _is_folder(model.adapter):
        quiet_transformers()
        from lengthwise.engines.transformers.loading import identify_model

        job.check_model(identify_model(model))


def _report_of_done(job: Job) -> RunReport:
    return RunReport(job.finished_result(), Counts(), 0.0, {"model": job.options.model})


def _answer(job: Job, settings: RunSettings) -> RunReport:
    with open_pipeline(settings) as pipeline:
        watch = Watch(lambda: pipeline.counts, lambda: job.num_finished, job.num_rows, settings.is_quiet)
        started_s = time.monotonic()
        try:
            with stopping(job.stop), watch:
                result = job.run(pipeline)
        finally:
            if settings.job.overwrite and not job.is_complete:
                say("Leave --overwrite out to go on: with it, what is finished by now is thrown away, too.")
        return RunReport(result, pipeline.counts, time.monotonic() - started_s, _engine_facts(pipeline))


def open_pipeline(settings: RunSettings) -> Pipeline:
    """Load the predictor, then the model, and put the pipeline together. Takes seconds: everything cheap was checked
    before."""
    from lengthwise.predictors.saved import load_predictor

    predictor = settings.predictor if settings.predictor in ("auto", "none") else load_predictor(settings.predictor)
    quiet_transformers()
    from lengthwise.engines.transformers import open_engine

    engine = open_engine(settings.model, settings.engine)
    return Pipeline(engine=engine, predictor=predictor, scheduler=settings.schedule, seed=settings.job.seed)


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
