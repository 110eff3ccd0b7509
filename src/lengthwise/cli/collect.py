"""`lengthwise collect PROMPTS -o LENGTHS`: how long a model's answers are, to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lengthwise.cli import engines as e
from lengthwise.cli import options as o
from lengthwise.cli import run as r
from lengthwise.cli.progress import duration
from lengthwise.engines.transformers import ModelOptions, RunOptions
from lengthwise.errors import UsageError, counted, shown
from lengthwise.jobs import JobOptions
from lengthwise.jobs.collecting import CollectJob, CollectOptions
from lengthwise.jobs.collecting.options import PAPER_TEMPERATURES
from lengthwise.jobs.collecting.tally import Tally, tally

_DEFAULTS = CollectOptions(Path("-"), Path("lengths.jsonl"))
_ASKED = e.AskedOfServers()
TEMPERATURES = ",".join(f"{one:g}" for one in PAPER_TEMPERATURES)

Lengths = Annotated[
    Path,
    typer.Option("-o", "--output", metavar="LENGTHS", help="Where prompts with their lengths go, as JSON lines."),
]
Temperatures = Annotated[
    str, typer.Option(metavar="T,T,...", help="Temperatures, one answer at each.", rich_help_panel="Answers")
]
Samples = Annotated[
    int,
    typer.Option(
        help="Answers at each temperature; greedy ones are equal, so there is one.", rich_help_panel="Answers"
    ),
]
KeepText = Annotated[
    bool, typer.Option("--keep-text", help="Write the answers' texts, too.", rich_help_panel="Answers")
]


def collect(
    prompts: o.Prompts,
    output: Lengths,
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
    temperatures: Temperatures = TEMPERATURES,
    samples: Samples = _DEFAULTS.num_samples,
    max_tokens: o.MaxTokens = o.RUN.max_tokens,
    top_p: o.TopP = o.SAMPLING.top_p,
    top_k: o.TopK = o.SAMPLING.top_k,
    stop: o.Stop = None,
    seed: o.Seed = 0,
    keep_text: KeepText = _DEFAULTS.keeps_text,
    predictor: o.Predictor = "none",
    schedule: o.ScheduleOption = "default",
    batch_size: o.BatchSize = o.RUN.batch_size,
    input_format: o.InputFormat = "auto",
    prompt_field: o.PromptField = _DEFAULTS.prompt_field,
    retry_failed: r.RetryFailed = _DEFAULTS.retry_failed,
    window: r.Window = _DEFAULTS.window,
    overwrite: r.Overwrite = _DEFAULTS.overwrite,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Several answers to each prompt, and how long they are. Killed, it goes on: run the same command again."""
    model_options = ModelOptions(
        model, revision, dtype, device, device_map, adapter, quantization, chat_template, None, trust_remote_code
    )
    asked = e.AskedOfServers(base_url, api_key_env, concurrency, priority, timeout, max_tokens_field)
    choice = e.choose_engine(engine, model_options, RunOptions(max_tokens=max_tokens, batch_size=batch_size), asked)
    options = CollectOptions(
        prompts=prompts,
        answers=output,
        input_format=input_format,
        prompt_field=prompt_field,
        sampling=o.sampling_params(o.SAMPLING.temperature, top_p, top_k, stop),
        max_tokens=max_tokens,
        seed=seed,
        chat_template=e.template_digest(chat_template),
        model=r.asked_for(choice),
        window=window,
        retry_failed=retry_failed,
        overwrite=overwrite,
        temperatures=parsed_temperatures(temperatures),
        num_samples=samples,
        keeps_text=keep_text,
    )
    settings = r.RunSettings(options, choice, predictor, schedule, quiet)
    return r.run_job(settings, json_, CollectJob.open, CollectReport)


def parsed_temperatures(given: str) -> tuple[float, ...]:
    """`0,0.3` as numbers. Raises UsageError."""
    try:
        return tuple(float(one) for one in given.split(","))
    except ValueError as error:
        raise UsageError(
            f"temperatures is {shown(given)}; it must be numbers with commas between them, like 0,0.3,0.5,0.7."
        ) from error


class CollectReport(r.RunReport):
    """What a collection did, for people and for programs."""

    @property
    def failures(self) -> str:
        return f"{self.result.num_finished:,} answers are finished; {self.failed_rows}."

    def sentence(self, job: JobOptions) -> str:
        result = self.result
        failed = f", {self.failed_rows}" if result.num_failed else ""
        if result.status == "already_done":
            mend = " --retry-failed asks for those again whose prompts are requests." if failed else ""
            found = tally(job.answers)
            return f"{job.answers} is already complete: {_told(found)}{failed}. Nothing was done.{mend}"
        if result.status == "interrupted":
            of = "" if result.num_requests is None else f" of {result.num_requests:,}"
            return f"Interrupted: {result.num_finished:,}{of} answers are finished. {r.HOW_TO_GO_ON}"
        rate = f"{self.counts.completion_tokens:,} tokens in {duration(self.wall_s)}"
        before = f", {counted(result.num_resumed, 'answer')} from before" if result.num_resumed else ""
        return f"{job.answers}: {_told(tally(job.answers))}{before}{failed}; {rate}."

    @property
    def failed_rows(self) -> str:
        where = f"`error` says why, or {self.errors} where all of a prompt's did"
        return f"{self.result.num_failed:,} failed ({where})"

    def to_json(self, settings: r.RunSettings) -> dict[str, Any]:
        """Requests are answers that were asked for; `prompts` and what follows are of the whole file, null as long as
        it is not there."""
        is_there = self.result.status in ("done", "already_done")
        found = tally(settings.job.answers) if is_there else None
        return {**super().to_json(settings), **_counted(found)}


def _told(found: Tally) -> str:
    cut = f", {found.num_cut:,} of them cut by the limit" if found.num_cut else ""
    partial = f", {found.num_partial:,} of them without some" if found.num_partial else ""
    failed = f" and {found.num_failed:,} without any" if found.num_failed else ""
    mean = f", {found.num_tokens / found.num_answers:,.0f} tokens on average" if found.num_answers else ""
    prompts, answers = counted(found.num_prompts, "prompt"), counted(found.num_answers, "answer")
    return f"{prompts}{partial}{failed}, {answers}{cut}{mean}"


def _counted(found: Tally | None) -> dict[str, int | None]:
    names = ("num_prompts", "num_partial", "num_failed", "num_answers", "num_cut", "num_tokens")
    keys = ("prompts", "prompts_partial", "prompts_failed", "answers_kept", "answers_cut", "answers_tokens")
    return {key: None if found is None else getattr(found, name) for key, name in zip(keys, names, strict=True)}
