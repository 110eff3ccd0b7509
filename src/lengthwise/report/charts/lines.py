"""Curves over one axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lengthwise.report.charts import Kind, Legend
from lengthwise.report.charts.frame import Frame, framed
from lengthwise.report.scales import Axis, Doubles

HEIGHT = 300.0


@dataclass(frozen=True, eq=False)
class Curve:
    """y over x (n each), with the ends of its intervals (n each) where they are known."""

    name: str
    kind: Kind
    x: Doubles
    y: Doubles
    low: Doubles | None = None
    high: Doubles | None = None
    has_dots: bool = False


@dataclass(frozen=True, eq=False)
class LineChart:
    """`no_gain_from`: from this height on nothing is gained, and the chart says so there."""

    x: Axis
    y: Axis
    curves: tuple[Curve, ...]
    no_gain_from: float | None = None

    @property
    def legend(self) -> Legend:
        return tuple((f"line {curve.kind}", curve.name) for curve in self.curves)

    def draw(self, width: float, told: str) -> str:
        frame = framed(width, HEIGHT, self.x, self.y)
        if self.no_gain_from is not None:
            _no_gain(frame, self.no_gain_from)
        for curve in self.curves:
            _draw(frame, curve)
        return frame.canvas.svg(told)


def _no_gain(frame: Frame, start: float) -> None:
    place = float(frame.y.at(start))
    frame.canvas.rectangle(frame.left, frame.top, frame.right - frame.left, place - frame.top, "nothing")
    frame.canvas.line(frame.left, place, frame.right, place, "line base thin")
    frame.canvas.text(frame.right - 6, frame.top + 14, "no gain", "end")


def _draw(frame: Frame, curve: Curve) -> None:
    canvas, x, y = frame.canvas, frame.x.at(curve.x), frame.y.at(curve.y)
    if curve.low is not None and curve.high is not None:
        around = np.concatenate([frame.y.at(curve.high), frame.y.at(curve.low)[::-1]])
        canvas.area(np.concatenate([x, x[::-1]]), around, f"band {curve.kind}")
    canvas.curve(x, y, f"line {curve.kind}")
    if curve.has_dots:
        canvas.dots(x, y, f"dots large {curve.kind}")
