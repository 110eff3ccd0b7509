"""Two axes with their grid, titles and labels, and the room between them."""

from __future__ import annotations

from dataclasses import dataclass

from lengthwise.report.canvas import CHARACTER, Canvas
from lengthwise.report.scales import Axis, Scale

WIDE, NARROW = 720.0, 336.0  # of a page on a screen, and of a telephone's 360 without its margins
TITLE_SPACE = 18.0
LABELS_SPACE = 20.0
TOP_SPACE = 26.0
ROW_SPACE = 44.0  # between labels above one another


@dataclass(frozen=True)
class Frame:
    """The room that two axes span on a canvas."""

    canvas: Canvas
    x: Scale
    y: Scale

    @property
    def left(self) -> float:
        return self.x.start

    @property
    def right(self) -> float:
        return self.x.end

    @property
    def top(self) -> float:
        return self.y.end

    @property
    def bottom(self) -> float:
        return self.y.start


def framed(width: float, height: float, x: Axis, y: Axis) -> Frame:
    """A canvas with grid and labels drawn; what is measured comes on top. The title of the y axis stands above it,
    where it needs no turning of heads."""
    canvas = Canvas(width, height)
    up = Scale(y, height - LABELS_SPACE - TITLE_SPACE, TOP_SPACE)
    rows = up.ticks(ROW_SPACE)
    left = 8 + CHARACTER * max(len(label) for _, label in rows)
    frame = Frame(canvas, Scale(x, left, width - 12), up)
    canvas.text(0, 12, y.title, kind="title")
    for value, label in rows:
        place = float(up.at(value))
        canvas.line(left, place, frame.right, place, "grid")
        canvas.text(left - 6, place + 4, label, "end")
    _columns(frame)
    return frame


def _columns(frame: Frame) -> None:
    canvas = frame.canvas
    for value, label in frame.x.ticks():
        place = float(frame.x.at(value))
        canvas.line(place, frame.bottom, place, frame.bottom + 4, "axis")
        half = CHARACTER * len(label) / 2
        inside = min(max(place, half), canvas.width - half)
        canvas.text(inside, frame.bottom + 16, label, "middle")
    canvas.line(frame.left, frame.bottom, frame.right, frame.bottom, "axis")
    canvas.text((frame.left + frame.right) / 2, canvas.height - 4, frame.x.axis.title, "middle", "title")
