"""`lengthwise predict PROMPTS`: how long each answer will be, without writing it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, Any

import numpy as np
import typer

from lengthwise.bundled import PREDICTOR_DIR
from lengthwise.cli import backbones as b
from lengthwise.cli import options as o
from lengthwise.cli.console import listen, quiet_transformers, say
from lengthwise.engines.transformers import ModelOptions
from lengthwise.errors import PredictorError, UsageError, counted
from lengthwise.jobs import Row
from lengthwise.jobs.formats import InputFormat
from lengthwise.jobs.ids import named_rows
from lengthwise.jobs.sources import open_source
from lengthwise.jobs.values import MAX_COUNT
from lengthwise.protocols import LengthPredictor
from lengthwise.types import ErrorInfo, Request

CHUNK = 4096  # requests estimated together: enough for columns to pay, 1 MiB of curves
NUMBERS = ("p50", "p90", "mean")

Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="Where the lengths go, as JSONL; without it, to stdout."),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="bundled|DIR_OR_HUB_ID",
        help="Whose answers; without it, those of the model it learned from. A predictor that asks a model asks this "
        "one (without it, the bundled one).",
    ),
]


def predict(
    prompts: o.Prompts,
    output: Output = None,
    model: Model = None,
    predictor: o.Predictor = "auto",
    chat_template: b.ChatTemplate = b.DEFAULTS.chat_template,
    base_url: b.BaseUrl = b.DEFAULTS.base_url,
    api_key_env: b.ApiKeyEnv = b.DEFAULTS.api_key_env,
    max_tokens: o.MaxTokens = o.RUN.max_tokens,
    input_format: o.InputFormat = "auto",
    prompt_field: o.PromptField = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over an existing FILE.")] = False,
) -> int:
    """How long each answer will be: median, 90th percentile and mean, in tokens."""
    listen(is_quiet=False)
    if not 1 <= max_tokens <= MAX_COUNT:
        raise UsageError(f"max_tokens is {max_tokens}; it must be from 1 to {MAX_COUNT}.")
    if output is not None:
        _check_output(output, prompts)
    rows = _rows(prompts, input_format, prompt_field)
    chosen = choose_predictor(predictor, b.BackboneChoice(model, chat_template, base_url, api_key_env))
    lengths = list(predicted_lengths(rows, chosen, max_tokens))
    if output is not None:
        _write(output, lengths, overwrite)
    else:
        _print(lengths)
    return 1 if any("error" in one for one in lengths) else 0


def choose_predictor(name: str, choice: b.BackboneChoice) -> LengthPredictor:
    """The predictor for a model's answers; without a model, the one asked for, which is then taken at its word.

    Raises PredictorError if it can't be loaded, or learned from another model than the one given.
    """
    from lengthwise.predictors import saved

    if saved.needs_backbone(name):
        return saved.load_predictor(name, choice.open())
    replace(choice, model=None).refuse_all(f"{name} asks none")
    if choice.model is None:
        return saved.load_predictor(str(PREDICTOR_DIR) if name == "auto" else name)
    identity = _identity(choice.model)
    found = saved.resolve(name, identity)
    if found.model not in (None, identity):
        raise PredictorError(
            f"The predictor {name} learned from {found.model}, the model is {identity}: its lengths would not hold. "
            "Leave --model out to see them all the same."
        )
    return found


def predicted_lengths(rows: Iterable[Row], predictor: LengthPredictor, max_tokens: int) -> Iterator[dict[str, Any]]:
    """`id`, `p50`, `p90` and `mean` of each row, in order, within its limit; null where nothing is known; `error`
    instead for a row that is no request."""
    remaining = iter(rows)
    while chunk := list(islice(remaining, CHUNK)):
        requests = [row.content for row in chunk if isinstance(row.content, Request)]
        known = iter(_lengths(requests, predictor, max_tokens))
        for row in chunk:
            if isinstance(row.content, ErrorInfo):
                error = row.content
                yield {"id": row.id, "error": {"type": error.type, "message": error.message, "line": row.line}}
            else:
                yield {"id": row.id, **next(known)}


def _lengths(requests: list[Request], predictor: LengthPredictor, max_tokens: int) -> list[dict[str, int | None]]:
    estimates = predictor.predict(requests)
    limits = np.array([request.max_tokens or max_tokens for request in requests], dtype=np.float64)
    capped = estimates.capped(limits)
    is_unknown = np.isinf(estimates.median) & (estimates.at_least == 0)
    # An estimate that is known to be longer than its limit has no limit: the answer would end at it.
    columns = np.minimum([capped.median, capped.quantile(0.9), capped.mean()], limits)
    return [
        dict.fromkeys(NUMBERS) if nothing else dict(zip(NUMBERS, map(round, numbers), strict=True))
        for nothing, numbers in zip(is_unknown.tolist(), columns.T.tolist(), strict=True)
    ]


def _rows(prompts: Path, asked: InputFormat, prompt_field: str | None) -> list[Row]:
    return list(named_rows(open_source(prompts, asked, prompt_field), o.SAMPLING, prompt_field))


def _identity(model: str) -> str:
    quiet_transformers()
    from lengthwise.engines.transformers.loading import identify_model

    return identify_model(ModelOptions(model))


def _check_output(output: Path, prompts: Path) -> None:
    if not output.name:
        raise UsageError(f"The lengths can't go to {str(output)!r}, which names no file; give one with -o.")
    if output.exists() and prompts.exists() and output.samefile(prompts):
        raise UsageError(f"The lengths would be written over the prompts in {prompts}; use another -o.")


def _write(output: Path, lengths: list[dict[str, Any]], overwrite: bool) -> None:
    try:
        with output.open("w" if overwrite else "x", encoding="utf-8") as file:
            _write_lines(file, lengths)
    except FileExistsError as error:
        raise UsageError(f"{output} exists and is not written over; use another -o, or --overwrite.") from error
    except OSError as error:
        raise UsageError(f"{output} can't be written ({error.strerror}); use another -o.") from error
    say(f"{output}: {counted(len(lengths), 'row')}.")


def _print(lengths: list[dict[str, Any]]) -> None:
    """A table for people, lines for programs. Raises UsageError where stdout can't be written."""
    if sys.stdout is None:  # it was closed
        raise UsageError("The lengths can't be written: stdout is closed. Give a file with -o.")
    try:
        if sys.stdout.isatty():
            _print_table(lengths)
        else:
            _write_lines(sys.stdout, lengths)
            sys.stdout.flush()
    except BrokenPipeError:  # nobody reads on, which is no mistake
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try again as it ends
        raise UsageError(f"The lengths can't be written to stdout ({error.strerror}); give a file with -o.") from error


def _write_lines(file: IO[str], lengths: list[dict[str, Any]]) -> None:
    for one in lengths:
        file.write(json.dumps(one, ensure_ascii=False) + "\n")


def _print_table(lengths: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("id")
    for name in NUMBERS:
        table.add_column(name, justify="right")
    if any("error" in one for one in lengths):
        table.add_column("error")
    for one in lengths:
        numbers = ["–" if one.get(name) is None else f"{one[name]:,}" for name in NUMBERS]
        said = [one["error"]["message"]] if "error" in one else []
        table.add_row(*map(escape, (one["id"], *numbers, *said)))
    Console().print(table)
