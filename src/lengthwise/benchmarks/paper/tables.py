"""Rows of one part → lines with figures: the baseline first, then each row, and why one has none."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lengthwise.benchmarks.paper.published import BLOG, REPOSITORY
from lengthwise.benchmarks.paper.reasons import reason_of
from lengthwise.benchmarks.paper.rows import BASE, Row
from lengthwise.benchmarks.paper.summary import GAIN, Line, Sampled, summed_up
from lengthwise.errors import LengthwiseError

log = logging.getLogger("lengthwise")

ONCE = ("encoder",)  # kinds that take an hour to train: with the first seed only


class Measured(Protocol):
    """What rows are measured on."""

    def sampled(self, row: Row, seeds: Sequence[int]) -> Sampled: ...

    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Part:
    """Tables of one set of lengths, or of one model. `name`: `recorded`, `model`, or the set's. `on`: its splits and
    settings. `has_paper`: the paper's figures stand beside, and why they differ."""

    name: str
    has_paper: bool = False
    lines: list[Line] = field(default_factory=list)
    on: dict[str, Any] = field(default_factory=dict)

    def key(self, line: Line) -> str:
        return f"{self.name}/{line.row.table}/{line.row.name}"

    def to_json(self) -> dict[str, dict[str, Any]]:
        return {self.key(line): {**line.to_json(), **beside(self, line)} for line in self.lines}


def measured(name: str, on: Measured, rows: Sequence[Row], seeds: Sequence[int], *, has_paper: bool = False) -> Part:
    """Raises what the baseline raises; another row that fails has its reason instead of figures."""
    return Part(name, has_paper, list(_lines(name, on, rows, seeds)), on.to_json())


def _lines(name: str, on: Measured, rows: Sequence[Row], seeds: Sequence[int]) -> Iterator[Line]:
    base = on.sampled(BASE, seeds)
    for row in rows:
        line = _line(on, row, seeds, base)
        if line.reason is None:
            log.info("%s, %s: %s: %+.0f %%", name, row.table, row.title, 100 * line.figures[GAIN])
        yield line


def _line(on: Measured, row: Row, seeds: Sequence[int], base: Sampled) -> Line:
    if row == BASE:
        return summed_up(row, base, base)
    wanted = seeds[:1] if row.known.kind in ONCE else seeds
    try:
        return summed_up(row, on.sampled(row, wanted), base)
    except LengthwiseError as error:
        return Line(row, reason=str(error))


def beside(part: Part, line: Line) -> dict[str, Any]:
    """What the paper's authors state of this row (None: nothing), and why figures differ."""
    if not part.has_paper:
        return {"paper": None, "repository": None, "why": None}
    name = (line.row.table, line.row.name)
    return {
        "paper": BLOG.get(name),
        "repository": REPOSITORY.get(name),
        "why": reason_of(part.name, *name) if line.reason is None else None,
    }
