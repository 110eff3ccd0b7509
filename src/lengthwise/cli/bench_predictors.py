"""`lengthwise bench predictors TRAIN TEST`: every kind of predictor, trained on one set and scored on another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lengthwise.cli.console import listen, say
from lengthwise.cli.data import Mirror
from lengthwise.cli.options import Json
from lengthwise.cli.train import Limit, Settings, check_limit, read_tables
from lengthwise.errors import UsageError

if TYPE_CHECKING:
    from lengthwise.benchmarks.perception.cells import Cell, Source

ALL = "all"
WORK = Path("predictors-bench")

Work = Annotated[
    Path, typer.Option("--work", metavar="DIR", help="Where finished figures and predictors stand: a run resumes.")
]
PageFile = Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="The page, as Markdown.")]


def predictors(
    train: Annotated[str, typer.Argument(metavar="TRAIN", help="What is learned from: a set's name, or a file.")],
    test: Annotated[str, typer.Argument(metavar="TEST", help="What is scored on.")],
    kinds: Annotated[str, typer.Option(help="Kinds with commas between them, or all.")] = ALL,
    target: Annotated[str, typer.Option(metavar="answer|max|mean|median|q0.9", help="What a length is.")] = "max",
    seeds: Annotated[str, typer.Option(help="With commas between them.")] = "0,1,2",
    once: Annotated[
        str | None, typer.Option(metavar="KIND,KIND", help="Kinds that are trained with the first seed only.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="bundled|DIR_OR_HUB_ID",
            help="For kinds that ask a language model or look into one; without it they are left out.",
        ),
    ] = None,
    work: Work = WORK,
    settings: Settings = None,
    limit: Limit = None,
    mirror: Mirror = None,
    output: PageFile = None,
    as_json: Json = False,
) -> int:
    """Train and score each kind with each seed, in processes of their own; medians and intervals as a table.

    What is finished in --work is not done again, as long as data, settings, model and version are the same."""
    from lengthwise.benchmarks.perception.board import rows
    from lengthwise.benchmarks.perception.cells import Source
    from lengthwise.benchmarks.perception.facts import facts
    from lengthwise.benchmarks.perception.page import page
    from lengthwise.benchmarks.perception.running import Work as Folder
    from lengthwise.benchmarks.perception.running import run_all

    listen(is_quiet=False)
    check_limit(limit)
    chosen, numbers = chosen_kinds(kinds), chosen_seeds(seeds)
    tables = tables_of(settings, chosen)
    learned, scored_on = (Source.of(name, mirror, limit) for name in (train, test))
    rare = [] if once is None else chosen_kinds(once)
    cells = _cells(chosen, numbers, target, learned, scored_on, tables, model)
    cells = [cell for cell in cells if cell.seed == numbers[0] or cell.kind not in rare]
    found = rows(list(run_all(Folder(work), cells)))
    about = {"bench": "predictors", "target": target, "seeds": numbers, "limit": limit, "settings": tables}
    sources = {"train": vars_of(learned), "test": vars_of(scored_on)}
    line = {**about, **sources, **facts(), "rows": [row.to_json() for row in found]}
    write_page(page(found), output, line, as_json)
    return 0 if any(row.figures for row in found if row.group == "kind") else 1


def write_page(text: str, output: Path | None, line: dict[str, Any], as_json: bool) -> None:
    """The page into its file, or on stdout where JSON doesn't go there."""
    if output is not None:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{output} can't be written ({error.strerror}); use another -o.") from error
        say(f"The page is {output}.")
    if as_json:
        typer.echo(json.dumps(line))
    elif output is None:
        typer.echo(text)


def vars_of(source: Source) -> dict[str, Any]:
    return {"name": source.name, "sha256_of_content": source.digest}


def chosen_kinds(kinds: str) -> list[str]:
    from lengthwise.learning.training import TRAINERS, check_kind

    chosen = list(TRAINERS) if kinds == ALL else [kind.strip() for kind in kinds.split(",")]
    for kind in chosen:
        check_kind(kind)
    return list(dict.fromkeys(chosen))


def chosen_seeds(seeds: str) -> list[int]:
    try:
        return list(dict.fromkeys(int(seed) for seed in seeds.split(",")))
    except ValueError as error:
        raise UsageError(f"The seeds are {seeds!r}; whole numbers with commas between them were expected.") from error


def tables_of(path: Path | None, kinds: list[str]) -> dict[str, dict[str, Any]]:
    """The settings of each kind: its table in the file; none where it has none."""
    if path is None:
        return {}
    tables = read_tables(path)
    return {kind: tables[kind] for kind in kinds if isinstance(tables.get(kind), dict)}


def _cells(
    kinds: list[str],
    seeds: list[int],
    target: str,
    train: Source,
    test: Source,
    tables: dict[str, dict[str, Any]],
    model: str | None,
) -> list[Cell]:
    """Seed by seed, so that a table with one seed is there early. Kinds that need a model come with one only."""
    from lengthwise.benchmarks.perception.cells import Cell, needs_model
    from lengthwise.learning.labels import Target

    name = Target(target).name
    asking = [kind for kind in kinds if needs_model(kind, tables.get(kind, {}))]
    if asking and model is None:
        say(f"{', '.join(asking)}: left out, as they need a language model (--model).")
    identity = _identity(model) if asking and model is not None else None
    return [
        Cell(
            kind,
            name,
            seed,
            train,
            test,
            tables.get(kind, {}),
            *((identity, model) if kind in asking else (None, None)),
        )
        for seed in seeds
        for kind in kinds
        if kind not in asking or model is not None
    ]


def _identity(model: str) -> str:
    from lengthwise.benchmarks.perception.cells import open_model

    return open_model(model).model
