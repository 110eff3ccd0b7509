"""The options of subcommands: the same word for the same thing everywhere, defaults from the configuration classes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lengthwise.engines.transformers import ModelOptions, RunOptions
from lengthwise.errors import RequestError, UsageError
from lengthwise.jobs import formats
from lengthwise.jobs.values import MAX_COUNT
from lengthwise.types import SamplingParams

Schedule = Literal["default", "refill", "grouped", "optimal", "paper", "arrival"]

MODEL = ModelOptions()
RUN = RunOptions()
SAMPLING = SamplingParams()

PREDICTOR_NAMES = "auto, none, constant:N, oracle:FILE, history, po, pia, po:ADAPTER_DIR, or a folder"

_MODEL, _SAMPLING, _SCHEDULING = "Model", "Answers", "Scheduling"

Prompts = Annotated[
    Path,
    typer.Argument(
        metavar="PROMPTS",
        help="JSONL or Parquet with prompt, messages, or instruction/input; an OpenAI Batch file; or text, a line a "
        "prompt. Gzip is fine; - is standard input.",
    ),
]
InputFormat = Annotated[
    formats.InputFormat, typer.Option(help="Format of PROMPTS; auto: by its suffix and its first characters.")
]
PromptField = Annotated[
    str | None, typer.Option(metavar="NAME", help="The field that has the prompt, in JSONL and Parquet.")
]
Predictor = Annotated[
    str,
    typer.Option(
        metavar="auto|none|constant:N|oracle:FILE|history|po|pia|po:ADAPTER_DIR|DIR",
        help="What estimates lengths: what is known for this model, nothing, one length, true ones from a file (the "
        "answers of a former run), what like requests took before in this run, the model itself, which is asked, or a "
        "saved predictor.",
        rich_help_panel=_SCHEDULING,
    ),
]
ScheduleOption = Annotated[
    Schedule,
    typer.Option("--schedule", help="default: refill where the engine can, else grouped.", rich_help_panel=_SCHEDULING),
]
BatchSize = Annotated[
    int | None,
    typer.Option(help="Most requests at once; without it, measured on this device.", rich_help_panel=_SCHEDULING),
]

Model = Annotated[
    str | None,
    typer.Option(
        metavar="bundled|DIR_OR_HUB_ID",
        help="Any Hugging Face causal model; without it, the bundled one.",
        rich_help_panel=_MODEL,
    ),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.", rich_help_panel=_MODEL)]
Dtype = Annotated[
    str,
    typer.Option(help="float32, float16, bfloat16; auto: float32 on a CPU, else as stored.", rich_help_panel=_MODEL),
]
Device = Annotated[
    str, typer.Option(help="cpu, cuda, cuda:1, mps; auto: the best that is there.", rich_help_panel=_MODEL)
]
DeviceMap = Annotated[
    str | None, typer.Option(help="Spread a large model: auto, balanced, ...", rich_help_panel=_MODEL)
]
Adapter = Annotated[str | None, typer.Option(metavar="DIR_OR_HUB_ID", help="A LoRA adapter.", rich_help_panel=_MODEL)]
Quantization = Annotated[
    Literal["4bit", "8bit"] | None, typer.Option(help="Quantise while loading.", rich_help_panel=_MODEL)
]
ChatTemplate = Annotated[
    str,
    typer.Option(
        metavar="auto|none|vicuna|FILE", help="How messages become text; auto: the model's own.", rich_help_panel=_MODEL
    ),
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.", rich_help_panel=_MODEL)
]

MaxTokens = Annotated[
    int, typer.Option(help="Limit of answers whose row gives none, in tokens.", rich_help_panel=_SAMPLING)
]
Temperature = Annotated[float, typer.Option(help="0 is greedy.", rich_help_panel=_SAMPLING)]
TopP = Annotated[
    float, typer.Option(help="Draw from the likeliest tokens that reach this probability.", rich_help_panel=_SAMPLING)
]
TopK = Annotated[
    int | None,
    typer.Option(help="Draw from so many likeliest tokens; without it, from all.", rich_help_panel=_SAMPLING),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(help="An answer ends before this text; may be given several times.", rich_help_panel=_SAMPLING),
]
Seed = Annotated[int, typer.Option(help="Rows without a seed draw from this and their id.", rich_help_panel=_SAMPLING)]

Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON at the end, on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary; errors only.")]


def sampling_params(temperature: float, top_p: float, top_k: int | None, stop: list[str] | None) -> SamplingParams:
    """The job's sampling. Raises UsageError on a value out of range: here it is the command that is wrong."""
    if top_k is not None and top_k > MAX_COUNT:
        raise UsageError(f"top_k is {top_k}; it must be at most {MAX_COUNT}, or left out.")
    try:
        return SamplingParams(temperature=temperature, top_p=top_p, top_k=top_k, stop=tuple(stop or ()))
    except RequestError as error:
        raise UsageError(str(error)) from error
