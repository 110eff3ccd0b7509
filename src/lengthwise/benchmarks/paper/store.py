"""What is finished stands in a folder, under a name that holds all that it depends on: a run that was interrupted goes
on where it was, and figures of other settings, data, models or versions never mix."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lengthwise import __version__
from lengthwise.benchmarks.kept import make_folders, read_whole, write_text_whole, write_whole
from lengthwise.predictors.folder import HEADER

FORMAT = 1  # of a cell's file: a newer one is another cell

Fields = dict[str, Any]


class Store:
    """Cells and predictors of the paper's tables. Raises UsageError where the folder can't be written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_folders(folder, ("cells", "predictors", "lengths"))

    def once(self, name: str, depends_on: Mapping[str, Any], make: Callable[[], Fields]) -> Fields:
        """The figures of this cell: those that are there, else new ones, kept when they are whole."""
        key = _key(depends_on)
        path = self.folder / "cells" / f"{name}-{_digest(key)}.json"
        known = read_whole(path)
        if known is not None and known.get("depends_on") == key:
            return dict(known["figures"])
        figures = make()
        write_whole(path, {"depends_on": key, "figures": figures})
        return figures

    def lengths_file(self, name: str, depends_on: Mapping[str, Any], make: Callable[[], list[Fields]]) -> Path:
        """A file of rows, written when all of them are there."""
        path = self.folder / "lengths" / f"{name}-{_digest(_key(depends_on))}.jsonl"
        if not path.is_file():
            write_text_whole(path, "".join(json.dumps(row) + "\n" for row in make()))
        return path

    def predictor(self, name: str, make: Callable[[Path], None]) -> Path:
        """The folder of a predictor, which `make` saves into the folder that it is given."""
        path = self.folder / "predictors" / name
        if not (path / HEADER).is_file():
            making = path.with_name(f".{os.getpid()}-{name}")
            shutil.rmtree(making, ignore_errors=True)
            make(making)
            shutil.rmtree(path, ignore_errors=True)
            making.rename(path)
        return path


def _key(depends_on: Mapping[str, Any]) -> Fields:
    """As it is when it was written and read."""
    found: Fields = json.loads(json.dumps({"format": FORMAT, "version": __version__, **depends_on}))
    return found


def _digest(key: Fields) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
