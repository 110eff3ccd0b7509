"""`lengthwise bench transfer PREDICTOR...`: a predictor on other models' answers, and adapted to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lengthwise.cli.bench_predictors import PageFile, write_page
from lengthwise.cli.console import listen, say
from lengthwise.cli.data import Mirror
from lengthwise.cli.options import Json
from lengthwise.cli.train import Limit, check_limit
from lengthwise.errors import UsageError

if TYPE_CHECKING:
    from lengthwise.benchmarks.perception.transfer import Line, TransferConfig
    from lengthwise.learning.data import LengthData
    from lengthwise.protocols import LengthPredictor

EVERY = "alpaca-eval"  # stands for all sets whose names begin with it


def transfer(
    predictors: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Trained predictors.")],
    on: Annotated[
        str, typer.Option("--on", metavar="DATA,DATA", help="Sets of other answers; alpaca-eval: all twelve.")
    ] = EVERY,
    rows: Annotated[str, typer.Option(help="How many prompts adapt, with commas between them.")] = "50,200,1000",
    splits: Annotated[int, typer.Option(help="Random splits of each set.", min=1)] = 20,
    limit: Limit = None,
    mirror: Mirror = None,
    output: PageFile = None,
    as_json: Json = False,
) -> int:
    """Order and error on answers of models that a predictor has not learned from: as it is, adapted by some of their
    answers (`train stack --base`), and learned from those alone. Each split holds out another third of a set."""
    from lengthwise.benchmarks.perception.facts import facts
    from lengthwise.benchmarks.perception.page import transfer_page
    from lengthwise.benchmarks.perception.transfer import TransferConfig
    from lengthwise.learning.data import read_data
    from lengthwise.predictors.saved import load_predictor

    listen(is_quiet=False)
    config = TransferConfig(_numbers(rows), splits)
    sets = [read_data(name, mirror, check_limit(limit)) for name in _names(on)]
    found: dict[str, list[Line]] = {}
    for folder in predictors:
        found[folder.name] = list(_lines(folder, load_predictor(folder), sets, config))
    lines = {name: [line.to_json() for line in part] for name, part in found.items()}
    about = {"bench": "transfer", "num_splits": splits, **facts(), "predictors": lines}
    write_page(transfer_page(found), output, about, as_json)
    return 0


def _lines(folder: Path, predictor: LengthPredictor, sets: list[LengthData], config: TransferConfig) -> Iterator[Line]:
    from lengthwise.benchmarks.perception.transfer import transfer as measure
    from lengthwise.learning.seen import num_seen, remembered

    seen = remembered(folder) or frozenset()
    for data in sets:
        if num := num_seen(seen, data.requests):
            say(f"{folder} has learned from {num:,} prompts of {data.name}, which flatters it.")
        yield from measure(predictor, data, config)
        say(f"{folder.name} on {data.name} is done.")


def _numbers(rows: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in rows.split(","))
    except ValueError as error:
        raise UsageError(f"--rows is {rows!r}; whole numbers with commas between them were expected.") from error


def _names(on: str) -> list[str]:
    from lengthwise.learning.data_catalogue import CATALOGUE

    if on == EVERY:
        return [name for name in CATALOGUE if name.startswith(f"{EVERY}/")]
    return on.split(",")
