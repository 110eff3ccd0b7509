"""`lengthwise train KIND DATA -o DIR`: a predictor from prompts and the lengths of their answers."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lengthwise.cli import backbones as b
from lengthwise.cli.console import listen, say
from lengthwise.cli.data import Mirror
from lengthwise.errors import UsageError, counted
from lengthwise.learning.labels import ANSWER
from lengthwise.learning.training import TRAINERS

STACK = "stack"

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
Bases = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DIR",
        help="stack: a trained predictor, to be adapted to DATA, none of which it may have learned from; may be given "
        "several times.",
    ),
]
Parts = Annotated[
    str | None,
    typer.Option(metavar="KIND,KIND", help="stack: kinds to train on DATA and to put together."),
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
    base: Bases = None,
    parts: Parts = None,
    report_to: ReportTo = None,
    model: b.Model = b.DEFAULTS.model,
    chat_template: b.ChatTemplate = b.DEFAULTS.chat_template,
    base_url: b.BaseUrl = b.DEFAULTS.base_url,
    api_key_env: b.ApiKeyEnv = b.DEFAULTS.api_key_env,
    mirror: Mirror = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over a predictor in DIR.")] = False,
) -> int:
    """Learn how long answers will be. Of the targets `answer` is what `run` needs; the others are for comparison with
    the paper."""
    from lengthwise.learning.data import read_data
    from lengthwise.learning.labels import Target
    from lengthwise.learning.seen import digests_of
    from lengthwise.learning.training import TrainConfig, check_kind, needs_backbone
    from lengthwise.learning.training import train as fit

    listen(is_quiet=False)
    check_kind(kind)
    if kind != STACK and (base or parts):
        raise UsageError(f"--{'base' if base else 'parts'} is an option of `train {STACK}`; leave it out.")
    wanted = Target(target)
    config = TrainConfig(
        seed=seed,
        settings=read_settings(settings, kind) | _put_together(base, parts),
        report_to=report_to,
        log_folder=None if report_to is None else str(output.with_name(f"{output.name}-logs")),
    )
    check_folder(output, overwrite)
    choice = b.BackboneChoice(model, chat_template, base_url, api_key_env)
    is_asking = needs_backbone(kind, config.settings)
    if not is_asking:
        choice.refuse_all(f"`train {kind}` asks none")
    with told_of_interrupt():
        learned = read_data(data, mirror, check_limit(limit))
        if is_asking:
            backbone = choice.open()
            config = replace(config, model=backbone.model, backbone=backbone)
        else:
            config = replace(config, model=learned.model)
        with _naming(settings, kind):
            predictor: Any = fit(kind, learned, wanted, config)
        save(predictor, output, digests_of(learned.requests).union(*map(_seen_by, base or ())))
    say(
        f"{output}: learned from {counted(len(learned), 'prompt')} of {data}. See what it is worth on others: "
        f"lengthwise score {output} DATA"
    )
    return 0


def _put_together(bases: list[str] | None, parts: str | None) -> dict[str, Any]:
    """Settings of a stack; none where nothing was given."""
    given = {"bases": bases, "parts": None if parts is None else [part.strip() for part in parts.split(",")]}
    return {name: value for name, value in given.items() if value}


@contextmanager
def _naming(settings: Path | None, kind: str) -> Iterator[None]:
    """While entered, what is wrong says which settings it may lie in."""
    try:
        yield
    except UsageError as error:
        if settings is None or type(error) is not UsageError:  # nothing that is loaded, or learned from, is a setting
            raise
        raise UsageError(f"{error} (The settings are the table [{kind}] of {settings}.)") from error


def _seen_by(base: str) -> frozenset[bytes]:
    from lengthwise.learning.seen import remembered

    return remembered(Path(base)) or frozenset()


def read_settings(path: Path | None, kind: str) -> dict[str, Any]:
    """The table of a kind. Raises UsageError on a file that can't be read, or that has no such table."""
    if path is None:
        return {}
    tables = read_tables(path)
    table = tables.get(kind)
    if not isinstance(table, dict):
        raise UsageError(f"{path} has no table [{kind}]; it has {', '.join(tables) or 'none'}.")
    return table


def read_tables(path: Path) -> dict[str, Any]:
    """All of a file of settings. Raises UsageError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"There is no file {path}; --settings takes a TOML file.") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"The settings {path} can't be read as TOML ({error}).") from error


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
