"""Values beside each other, against one of them."""

from __future__ import annotations

from dataclasses import dataclass

from lengthwise.report.canvas import CHARACTER, Canvas
from lengthwise.report.charts import Kind, Legend
from lengthwise.report.charts.frame import NARROW, Frame
from lengthwise.report.scales import Axis, Scale

ROW, BAR = 34.0, 15.0
HEAD = 16.0
Meanings = tuple[tuple[Kind, str], ...]


@dataclass(frozen=True)
class Bar:
    """One value with its 95 % interval, where there is one, and its words: `value` with a unit, say."""

    name: str
    kind: Kind
    value: float
    said: str
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class BarChart:
    """Bars from 0 to each value, below each other, with a line at `reference`; their words stand in a column beside.
    What is beyond the axis ends there, and its words say how much it is."""

    axis: Axis
    bars: tuple[Bar, ...]
    reference: float | None = None
    meanings: Meanings = ()

    @property
    def legend(self) -> Legend:
        shown = {bar.kind for bar in self.bars}
        return tuple((f"fill {kind}", meaning) for kind, meaning in self.meanings if kind in shown)

    def draw(self, width: float, told: str) -> str:
        canvas = Canvas(width, HEAD + ROW * len(self.bars) + 40)
        said_width = CHARACTER * max(len(bar.said) for bar in self.bars) + 8
        left = 0.0 if width <= NARROW else 8 + CHARACTER * max(len(bar.name) for bar in self.bars)
        x = Scale(self.axis, left, width - said_width)
        frame = Frame(canvas, x, Scale(Axis("", 0, 1), canvas.height - 40, HEAD))
        self._draw_axis(frame)
        down = 24.0 if not left else ROW / 2  # on a narrow page a name stands above its bar
        middles = [HEAD + ROW * number + down for number in range(len(self.bars))]
        for bar, middle in zip(self.bars, middles, strict=True):
            _draw(frame, bar, middle)
        if self.reference is not None:
            place = float(x.at(self.reference))
            canvas.line(place, frame.top, place, frame.bottom, "line base thin")
        for bar, middle in zip(self.bars, middles, strict=True):  # over all lines
            if left:
                canvas.text(left - 8, middle + 4, bar.name, "end")
            else:
                canvas.text(0, middle - 12, bar.name)
            canvas.text(width, middle + 4, bar.said, "end")
        return canvas.svg(told)

    def _draw_axis(self, frame: Frame) -> None:
        canvas = frame.canvas
        for value, label in frame.x.ticks():
            place = float(frame.x.at(value))
            canvas.line(place, frame.top, place, frame.bottom, "grid")
            canvas.text(max(place, CHARACTER * len(label) / 2), frame.bottom + 16, label, "middle")
        canvas.text((frame.left + frame.right) / 2, canvas.height - 4, self.axis.title, "middle", "title")


def _draw(frame: Frame, bar: Bar, middle: float) -> None:
    canvas, x = frame.canvas, frame.x
    end = float(x.at(bar.value))
    canvas.rectangle(x.start, middle - BAR / 2, end - x.start, BAR, f"fill {bar.kind}", f"{bar.name}: {bar.said}")
    if bar.interval is not None:
        low, high = (float(place) for place in x.at(bar.interval))
        canvas.line(low, middle, high, middle, "whisker")
        for place in (low, high):
            canvas.line(place, middle - 4, place, middle + 4, "whisker")
