"""One figure of a report: charts, what they show in words, and the same as a table and as CSV."""

from __future__ import annotations

import base64
import csv
import io
from dataclasses import dataclass

from lengthwise.report.charts import Chart, Legend
from lengthwise.report.numbers import short

Value = str | float | int | None

MAX_SHOWN_ROWS = 60  # of a table on the page; all are in the CSV
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Table:
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]

    @property
    def shown(self) -> list[list[tuple[str, bool]]]:
        """Cells of the first rows as people read them, and whether each is a number."""
        return [[(_shown(value), not isinstance(value, str)) for value in row] for row in self.rows[:MAX_SHOWN_ROWS]]

    @property
    def num_hidden(self) -> int:
        return max(0, len(self.rows) - MAX_SHOWN_ROWS)

    def csv(self) -> str:
        """Numbers in full. A text that a spreadsheet would take for a formula gets an apostrophe in front: names may
        come from anybody."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([[_plain(value) for value in row] for row in self.rows])
        return out.getvalue()

    @property
    def csv_address(self) -> str:
        """The CSV inside a link, so that it needs no second file."""
        content = base64.b64encode(self.csv().encode(errors="replace")).decode()
        return f"data:text/csv;charset=utf-8;base64,{content}"


@dataclass(frozen=True)
class Panel:
    """One of a figure's charts; `title` tells it apart, `told` is read aloud in its place."""

    chart: Chart
    told: str
    title: str = ""


@dataclass(frozen=True)
class Figure:
    """`name` is that of its place in the page and of its CSV; `says` is what it shows, in a sentence or two."""

    name: str
    title: str
    says: str
    panels: tuple[Panel, ...]
    table: Table

    @property
    def legend(self) -> Legend:
        """What the colours of all panels mean, each once."""
        return tuple(dict.fromkeys(entry for panel in self.panels for entry in panel.chart.legend))


def _shown(value: Value) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else short(float(value))


def _plain(value: Value) -> Value:
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return f"'{value}"
    return value
