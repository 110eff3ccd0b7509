"""A gain for each pair of settings; where there is none, that is seen."""

from __future__ import annotations

from dataclasses import dataclass

from lengthwise.report.canvas import CHARACTER, Canvas
from lengthwise.report.charts import Legend
from lengthwise.report.numbers import percent

ROW, TOP = 34.0, 20.0
STEPS = (0.03, 0.1, 0.2, 0.35)  # gains from which a cell is one shade stronger


@dataclass(frozen=True)
class Cell:
    """`gain` is the share saved, None where nothing is gained, `said` what is told of the cell. `is_dear`: others pay
    for it, so it is no gain to go by."""

    gain: float | None
    said: str
    is_dear: bool = False


@dataclass(frozen=True)
class HeatChart:
    """Cells by rows (`row_names`, from above) and columns; the titles say what both are."""

    row_title: str
    column_title: str
    row_names: tuple[str, ...]
    column_names: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]

    @property
    def legend(self) -> Legend:
        steps = ((f"gain{number}", f"{percent(step)} or more") for number, step in enumerate(STEPS))
        dear = any(cell.is_dear for row in self.cells for cell in row)
        return (("none", "no gain"), *((("dear", "the slowest pay for it"),) if dear else ()), *steps)

    def draw(self, width: float, told: str) -> str:
        canvas = Canvas(width, TOP + ROW * len(self.row_names) + 38)
        left = 8 + CHARACTER * max(map(len, self.row_names))
        step = (width - left) / len(self.column_names)
        canvas.text(0, 12, self.row_title, kind="title")
        for row, (name, cells) in enumerate(zip(self.row_names, self.cells, strict=True)):
            top = TOP + ROW * row
            canvas.text(left - 8, top + ROW / 2 + 4, name, "end")
            for column, cell in enumerate(cells):
                _draw(canvas, cell, left + step * column, top, step)
        bottom = TOP + ROW * len(self.row_names)
        for column, name in enumerate(self.column_names):
            canvas.text(left + step * (column + 0.5), bottom + 16, name, "middle")
        canvas.text((left + width) / 2, canvas.height - 4, self.column_title, "middle", "title")
        return canvas.svg(told)


def _draw(canvas: Canvas, cell: Cell, x: float, y: float, width: float) -> None:
    kind, words = "none", "0"
    if cell.gain is not None:
        kind, words = "dear" if cell.is_dear else f"gain{shade(cell.gain)}", f"−{100 * cell.gain:.0f} %"
    canvas.rectangle(x + 1, y + 1, width - 2, ROW - 2, f"cell {kind}", cell.said)
    canvas.text(x + width / 2, y + ROW / 2 + 4, words, "middle", f"in-{kind}")


def shade(gain: float) -> int:
    """Which of STEPS a gain has reached."""
    return max(0, sum(gain >= step for step in STEPS) - 1)
