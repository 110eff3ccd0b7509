"""A report as one HTML file: no script, no network, nothing beside it."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from lengthwise import __version__
from lengthwise.errors import UsageError
from lengthwise.report.charts.frame import NARROW, WIDE
from lengthwise.report.figure import Figure


@dataclass(frozen=True)
class Tile:
    """One number worth reading first."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Page:
    """What a report says. `answer` is the sentence that a newcomer reads; `is_gain` colours it (None: neither).
    `words` explains the terms that the page uses; `notes` say how it was found out."""

    title: str
    answer: str
    because: str
    is_gain: bool | None
    tiles: tuple[Tile, ...]
    figures: tuple[Figure, ...]
    words: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = field(default=())

    def html(self) -> str:
        from jinja2 import Environment

        folder = files("lengthwise.report")
        # Everything that is put into the template is escaped, but for charts and styles, which do that themselves.
        template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
            folder.joinpath("page.html").read_text(encoding="utf-8")
        )
        style = folder.joinpath("page.css").read_text(encoding="utf-8")
        return template.render(page=self, style=style, wide=WIDE, narrow=NARROW, version=__version__)


def check_place(path: Path) -> None:
    """Raises UsageError where a report can't be written: asked before the work, not after."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give a file for --report, out.html say.")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is no folder; make it, or give another place for --report.")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path.parent} can't be written; give another place for --report.")


def save(page: Page, path: Path) -> None:
    """Put the page there, whole or not at all. Raises UsageError where that can't be."""
    content = page.html().encode("utf-8", errors="replace")  # a lone surrogate in a name is no reason to fail
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            file.write(content)
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
    except OSError as error:
        raise UsageError(f"{path} can't be written ({error.strerror}); give another place for --report.") from error
