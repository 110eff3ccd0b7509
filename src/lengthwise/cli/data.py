"""`lengthwise data list|get NAME`: the public sets that predictors are trained and scored on."""

from __future__ import annotations

from pathlib import Path
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

app = typer.Typer(help="Public sets of prompts and answer lengths.", no_args_is_help=True)


@app.command("list")
def list_sets() -> int:
    """The sets by name: rows, licence, what they are."""
    from rich.console import Console
    from rich.table import Table

    from lengthwise.learning.data_catalogue import CATALOGUE

    table = Table()
    for column in ("name", "rows", "licence", "what"):
        table.add_column(column, no_wrap=column != "what")
    for name, dataset in CATALOGUE.items():
        table.add_row(name, f"{dataset.num_rows:,}", dataset.licence, dataset.about)
    Console().print(table)
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
