"""`lengthwise train KIND DATA -o DIR`: a predictor from prompts and the lengths of their answers."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lengthwise.cli.console import listen, say
from lengthwise.cli.data import Mirror
from lengthwise.errors import UsageError
from lengthwise.learning.labels import ANSWER
from lengthwise.learning.training import TRAINERS

Data = Annotated[
    str,
    typer.Argument(metavar="DATA", help="A set of `lengthwise data list`, or JSONL or Parquet with prompt and length."),
]
Limit = Annotated[
    int | None,
    typer.Option(metavar="TOKENS", help="Limit that cut the answers: lengths that reach it are `at least` that."),
]

Settings = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="TOML whose table of that kind has settings that differ from the defaults."),
]
ReportTo = Annotated[
    Literal["tensorboard", "wandb"] | None,
    typer.Option("--report-to", help="Where a language model's training is logged, beside DIR; without it, nowhere."),
]


def train(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"What kind of predictor: {', '.join(TRAINERS)}.")],
    data: Data,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where the predictor goes.")],
    target: Annotated[
        str,
        typer.Option(metavar="answer|max|mean|median|q0.9", help="What a length is: one answer, or of its samples."),
    ] = ANSWER,
    seed: Annotated[int, typer.Option(help="Of folds and trees.")] = 0,
    limit: Limit = None,
    settings: Settings = None,
    report_to: ReportTo = None,
    mirror: Mirror = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over a predictor in DIR.")] = False,
) -> int:
    """Learn how long answers will be. `answer` is what `run` needs; the others are for comparison with the paper."""
    from lengthwise.learning.data import read_data
    from lengthwise.learning.labels import Target
    from lengthwise.learning.seen import digests_of
    from lengthwise.learning.training import TrainConfig, check_kind
    from lengthwise.learning.training import train as fit

    listen(is_quiet=False)
    check_kind(kind)
    wanted = Target(target)
    config = TrainConfig(
        seed=seed,
        settings=read_settings(settings, kind),
        report_to=report_to,
        log_folder=None if report_to is None else str(output.with_name(f"{output.name}-logs")),
    )
    check_folder(output, overwrite)
    with told_of_interrupt():
        learned = read_data(data, mirror, check_limit(limit))
        predictor: Any = fit(kind, learned, wanted, config)
        save(predictor, output, digests_of(learned.requests))
    say(
        f"{output}: learned from {len(learned):,} prompts of {data}. See what it is worth on others: lengthwise score "
        f"{output} DATA"
    )
    return 0


def read_settings(path: Path | None, kind: str) -> dict[str, Any]:
    """The table of a kind. Raises UsageError on a file that can't be read, or that has no such table."""
    if path is None:
        return {}
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"The settings {path} can't be read as TOML ({error}).") from error
    table = tables.get(kind)
    if not isinstance(table, dict):
        raise UsageError(f"{path} has no table [{kind}]; it has {', '.join(tables) or 'none'}.")
    return table


def save(predictor: Any, output: Path, seen: frozenset[bytes]) -> None:
    """With the digests of the prompts that it has seen. Raises UsageError where it can't be written."""
    from lengthwise.learning.seen import remember

    try:
        predictor.save(output)
        remember(output, seen)
    except OSError as error:
        raise UsageError(f"{output} can't be written ({error.strerror}); use another -o.") from error


@contextmanager
def told_of_interrupt() -> Iterator[None]:
    """Ctrl-C while entered ends the command with a word."""
    try:
        yield
    except KeyboardInterrupt:
        say("Stopped before it was done; nothing came of it.")
        raise


def check_folder(output: Path, overwrite: bool) -> None:
    """Raises UsageError where something else is, or a predictor that may not be replaced."""
    from lengthwise.predictors.folder import HEADER

    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file; a predictor is a folder, use another -o.")
    if (output / HEADER).exists() and not overwrite:
        raise UsageError(f"{output} holds a predictor, which is not written over; use another -o, or --overwrite.")
    if output.is_dir() and not (output / HEADER).exists() and any(output.iterdir()):
        raise UsageError(f"{output} holds other files; use a new or an empty folder.")


def check_limit(limit: int | None) -> int | None:
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}; it must be 1 token or more.")
    return limit
