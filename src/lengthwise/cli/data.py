"""`lengthwise data list|get NAME`: the public sets that predictors are trained and scored on."""

from __future__ import annotations

import sys
from pathlib import Path
from shutil import get_terminal_size
from textwrap import fill
from typing import Annotated

import typer

from lengthwise.cli.console import listen, say

Mirror = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        envvar="LENGTHWISE_DATA_MIRROR",
        help="Folder that public sets are looked for in before they are fetched.",
    ),
]

_HOMES = {"mirror": "in the mirror", "public": "public", "none": "only from a mirror"}

app = typer.Typer(help="Public sets of prompts and answer lengths.", no_args_is_help=True)


@app.command("list")
def list_sets(mirror: Mirror = None) -> int:
    """The sets by name: rows, licence, where `get` takes them from, what they are; in a pipe a line each, with tabs."""
    from lengthwise.learning.data_catalogue import CATALOGUE
    from lengthwise.learning.data_fetch import home_of

    width = get_terminal_size().columns
    for name, dataset in CATALOGUE.items():
        home = _HOMES[home_of(name, mirror)]
        if sys.stdout.isatty():
            typer.echo(fill(f"{name}: {dataset.num_rows:,} rows, {dataset.licence}, {home}", width))
            typer.echo(fill(dataset.about, width, initial_indent="  ", subsequent_indent="  "))
        else:
            typer.echo("\t".join([name, str(dataset.num_rows), dataset.licence, home, dataset.about]))
    return 0


@app.command("get")
def get(name: Annotated[str, typer.Argument(metavar="NAME")], mirror: Mirror = None) -> int:
    """Fetch a set, unless it is there, and print where it lies. Its SHA-256 is checked."""
    from lengthwise.learning import data_fetch
    from lengthwise.learning.data_catalogue import CATALOGUE

    listen(is_quiet=False)
    path = data_fetch.get(name, mirror)
    say(f"{CATALOGUE[name].about}. Licence as stated at its home: {CATALOGUE[name].licence}.")
    typer.echo(path)
    return 0
