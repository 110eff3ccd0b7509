"""`lengthwise estimate PROMPTS`: tokens, price and time of a job, before it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lengthwise.cli import engines as e
from lengthwise.cli import options as o
from lengthwise.cli.console import listen, print_line, reason
from lengthwise.cli.estimate_basis import Asked, choose_predictor, model_at_hand, prepared, seconds_of
from lengthwise.cli.estimate_page import Outcome, page, to_json
from lengthwise.engines.transformers import ModelOptions
from lengthwise.errors import UsageError, shown
from lengthwise.jobs import Row
from lengthwise.jobs.ids import named_rows
from lengthwise.jobs.sources import open_source
from lengthwise.types import Request

if TYPE_CHECKING:
    from lengthwise.learning.estimating.prices import Price

CHUNK = 4096  # requests estimated together, as in `predict`

_PRICE, _TIME = "Price", "Time"

LevelError = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="How far all lengths together may be off, as a standard deviation (0.05: 5 %), seen in former jobs. "
        "Without it, by what the predictor learned from, and for other prompts than those.",
        rich_help_panel="Answers",
    ),
]
PriceFile = Annotated[
    Path | None,
    typer.Option("--price", metavar="FILE", help="TOML or JSON with prices by model.", rich_help_panel=_PRICE),
]
InputPrice = Annotated[float | None, typer.Option(help="Of a million tokens of prompts.", rich_help_panel=_PRICE)]
OutputPrice = Annotated[float | None, typer.Option(help="Of a million tokens of answers.", rich_help_panel=_PRICE)]
NoProbe = Annotated[
    bool,
    typer.Option("--no-probe", help="Measure nothing: time only by what was measured before.", rich_help_panel=_TIME),
]
StepCost = Annotated[
    str | None,
    typer.Option(
        metavar="FIXED_S,ROW_S",
        help="Seconds of a step, and more for each row: a machine that is not here. With --batch-size.",
        rich_help_panel=_TIME,
    ),
]
TokensPerSecond = Annotated[
    float | None,
    typer.Option(
        help="What a server writes in all; with --concurrency, in each of so many answers.", rich_help_panel=_TIME
    ),
]
Concurrency = Annotated[int | None, typer.Option(help="Answers at once on the server.", rich_help_panel=_TIME)]


def estimate(
    prompts: o.Prompts,
    predictor: o.Predictor = "auto",
    engine: e.EngineOption = "transformers",
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
    level_error: LevelError = None,
    price: PriceFile = None,
    input_price: InputPrice = None,
    output_price: OutputPrice = None,
    schedule: o.ScheduleOption = "default",
    batch_size: o.BatchSize = o.RUN.batch_size,
    no_probe: NoProbe = False,
    step_cost: StepCost = None,
    tokens_per_second: TokensPerSecond = None,
    concurrency: Concurrency = None,
    input_format: o.InputFormat = "auto",
    prompt_field: o.PromptField = None,
    json_: o.Json = False,
) -> int:
    """Tokens, price and time of a job before it runs. Nothing is sent to any server."""
    listen(is_quiet=json_)
    options = ModelOptions(
        model, revision, dtype, device, device_map, adapter, quantization, chat_template, None, trust_remote_code
    )
    steps = None if step_cost is None else parsed_step_cost(step_cost)
    asked = Asked(
        engine,
        options,
        predictor,
        max_tokens,
        schedule,
        batch_size,
        steps,
        tokens_per_second,
        concurrency,
        not no_probe,
    )
    asked_price = chosen_price(price, input_price, output_price, model)
    rows = named_rows(open_source(prompts, input_format, prompt_field), o.SAMPLING, prompt_field)
    if level_error is not None and not 0 <= level_error <= 1:
        raise UsageError(f"level_error is {level_error}; it must be a share from 0 to 1.")
    found = outcome(str(prompts), rows, asked, asked_price, level_error)
    _print(json.dumps(to_json(found)) if json_ else page(found))
    return 1 if found.num_invalid or found.outlook.num_refused else 0


def parsed_step_cost(given: str) -> tuple[float, float]:
    """`0.025,0.00035`. Raises UsageError."""
    try:
        fixed_s, row_s = map(float, given.split(","))
    except ValueError as error:
        raise UsageError(f"step_cost is {shown(given)}; it must be two numbers, like 0.025,0.00035.") from error
    return fixed_s, row_s


def chosen_price(
    table: Path | None, input_price: float | None, output_price: float | None, model: str | None
) -> Price | None:
    """From the file, or from the two options; None where neither is given. Raises UsageError."""
    from lengthwise.learning.estimating.prices import Price, read_price

    if table is not None and (input_price is not None or output_price is not None):
        raise UsageError("--price is a table, and --input-price and --output-price are prices; give one or the other.")
    if (input_price is None) != (output_price is None):
        raise UsageError("A price needs both, --input-price and --output-price; one may be 0.")
    if table is not None:
        return read_price(table, model)
    return None if input_price is None or output_price is None else Price(input_price, output_price)


def outcome(
    name: str, rows: Iterator[Row], asked: Asked, price: Price | None, level_error: float | None = None
) -> Outcome:
    """All that is known of the job before it runs."""
    from lengthwise.learning.estimating.jobs import JobOutlook
    from lengthwise.learning.estimating.level import level_error_of

    here = model_at_hand(asked)
    predictor = choose_predictor(asked, here)
    if asked.model.model is None and here is not None and predictor.model not in (None, here.identity):
        here = None  # the predictor is another model's, so the bundled one is not meant
    outlook = JobOutlook(predictor)
    num_invalid = 0
    while chunk := list(islice(rows, CHUNK)):
        requests = [row.content for row in chunk if isinstance(row.content, Request)]
        num_invalid += len(chunk) - len(requests)
        outlook.add(requests, prepared(requests, asked, here))
    error = level_error_of(predictor, outlook.totals.spread) if level_error is None else level_error
    interval = outlook.totals.interval(error)
    seconds, why = seconds_of(asked, here, outlook, interval)
    model = here.identity if here is not None else asked.model.model or predictor.model
    return Outcome(name, num_invalid, outlook, interval, error, here is not None, model, predictor, price, seconds, why)


def _print(text: str) -> None:
    try:
        print_line(text)
    except BrokenPipeError:
        raise
    except (OSError, ValueError, AttributeError) as error:
        told = reason(error) if isinstance(error, (OSError, ValueError)) else "it is closed"
        raise UsageError(f"The estimate can't be written to standard output ({told}).") from error
