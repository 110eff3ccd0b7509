"""Predicted against actual lengths, both by logarithm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lengthwise.report.charts import Legend
from lengthwise.report.charts.frame import framed
from lengthwise.report.scales import Axis, Doubles

HEIGHT = 400.0
FACTOR = 2.0  # the shaded band: predicted within this factor of what came


@dataclass(frozen=True, eq=False)
class ScatterChart:
    """Points at (actual, predicted), n each, in tokens from 1 on."""

    actual: Doubles
    predicted: Doubles

    @property
    def legend(self) -> Legend:
        return (
            ("dot ours", "an answer"),
            ("line base", "predicted as it came"),
            ("nothing", f"within a factor of {FACTOR:g}"),
        )

    def draw(self, width: float, told: str) -> str:
        around = Axis.around("", np.concatenate([self.actual, self.predicted]), is_log=True)
        x = Axis("tokens that came", around.low, around.high, is_log=True)
        frame = framed(width, HEIGHT, x, Axis("predicted tokens (median)", around.low, around.high, is_log=True))
        line = np.geomspace(around.low, around.high, 60)
        places = frame.x.at(line)
        edges = np.concatenate([frame.y.at(line * FACTOR), frame.y.at(line / FACTOR)[::-1]])
        frame.canvas.area(np.concatenate([places, places[::-1]]), edges, "nothing")
        frame.canvas.curve(places, frame.y.at(line), "line base thin")
        frame.canvas.dots(frame.x.at(self.actual), frame.y.at(self.predicted), "dots ours")
        return frame.canvas.svg(told)
