"""Cells → their results: what is finished is read, the rest is trained and scored, each in a process of its own.

A result is one file, put into its place when it is whole, under a name that holds all that it depends on; so a run that
was killed goes on where it was, even between training and scoring, and figures of different settings never mix.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthwise.benchmarks.kept import make_folders, read_whole, write_whole
from lengthwise.benchmarks.perception.cells import Cell
from lengthwise.predictors.folder import HEADER

log = logging.getLogger("lengthwise")

WORKER = "lengthwise.benchmarks.perception.worker"
MAX_REASON_CHARACTERS = 300


@dataclass(frozen=True)
class Result:
    """A cell's figures, or why there are none."""

    cell: Cell
    figures: dict[str, Any]
    reason: str | None = None


class Work:
    """The folder that holds results, predictors and logs of a board. Raises UsageError where it can't be written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_folders(folder, ("cells", "trained", "predictors", "logs"))

    def finished(self, cell: Cell) -> dict[str, Any] | None:
        """What is known of a cell, None where it is not finished."""
        return read_whole(self._path("cells", cell))

    def predictor(self, cell: Cell) -> Path:
        """Where the cell's predictor stands, or will."""
        return self.folder / "predictors" / cell.name

    def run(self, cell: Cell) -> Result:
        """The cell's figures: those that are there, or new ones. A failure is kept nowhere, so that it is tried again
        the next time."""
        if (known := self.finished(cell)) is not None:
            return Result(cell, known)
        trained = self._trained(cell)
        if isinstance(trained, str):
            return Result(cell, {}, trained)
        log.info("scoring %s", cell.name)
        measured = self._stage("measure", cell, self.predictor(cell))
        if isinstance(measured, str):
            return Result(cell, {}, measured)
        found = {"cell": cell.to_json(), **trained, **measured}
        write_whole(self._path("cells", cell), found)
        return Result(cell, found)

    def _trained(self, cell: Cell) -> dict[str, Any] | str:
        """What training took; from a run that ended between training and scoring where there was one."""
        known = read_whole(self._path("trained", cell))
        if known is not None and (self.predictor(cell) / HEADER).is_file():
            return known
        log.info("training %s", cell.name)
        # Not in its place: where this process is killed, the one that trains goes on for a while.
        making = self.folder / "predictors" / f".{os.getpid()}-{cell.name}"
        found = self._stage("train", cell, making)
        if not isinstance(found, str):
            shutil.rmtree(self.predictor(cell), ignore_errors=True)
            making.rename(self.predictor(cell))
            write_whole(self._path("trained", cell), found)
        shutil.rmtree(making, ignore_errors=True)
        return found

    def _stage(self, stage: str, cell: Cell, predictor: Path) -> dict[str, Any] | str:
        """The result of one process; a text says why there is none."""
        out = self.folder / "logs" / f"{cell.name}.{stage}.{os.getpid()}.json"
        said = self.folder / "logs" / f"{cell.name}.{stage}.log"
        arguments = [stage, json.dumps(cell.to_json()), str(predictor), str(out)]
        with said.open("w", encoding="utf-8") as file:
            done = subprocess.run([sys.executable, "-m", WORKER, *arguments], stdout=file, stderr=file, check=False)
        found = read_whole(out)
        out.unlink(missing_ok=True)
        return found if found is not None else _reason(said, done.returncode)

    def _path(self, folder: str, cell: Cell) -> Path:
        return self.folder / folder / f"{cell.name}.json"


def run_all(work: Work, cells: Sequence[Cell]) -> Iterator[Result]:
    """Results as they come; how far it is, is logged."""
    for number, cell in enumerate(cells, start=1):
        result = work.run(cell)
        if result.reason is not None:
            log.warning("%d of %d: %s: %s", number, len(cells), cell.name, result.reason)
        else:
            log.info("%d of %d: %s: MAE %.1f", number, len(cells), cell.name, result.figures["mae"])
        yield result


def _reason(path: Path, code: int) -> str:
    """The last line that a failed process said."""
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = lines[-1].strip() if lines else "it said nothing"
    return f"{said[:MAX_REASON_CHARACTERS]} (exit code {code})"
