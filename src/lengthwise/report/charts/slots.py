"""How many requests ran over time, what was idle shaded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lengthwise.report.canvas import stepped
from lengthwise.report.charts import Kind, Legend
from lengthwise.report.charts.frame import framed
from lengthwise.report.scales import Axis, Doubles

HEIGHT = 190.0


@dataclass(frozen=True, eq=False)
class SlotsChart:
    """`running` (n) holds between each of `edges` (n + 1, in the axis' unit) and the next. The engine has `slots`, and
    they count as idle as long as it ran."""

    time: Axis
    edges: Doubles
    running: Doubles
    slots: int
    kind: Kind

    @property
    def legend(self) -> Legend:
        return (("idle", "slots that stand idle"),)

    def draw(self, width: float, told: str) -> str:
        frame = framed(
            width, HEIGHT, self.time, Axis("slots", 0, self.slots, ticks=((0, "0"), (self.slots, str(self.slots))))
        )
        corners, heights = stepped(self.edges.tolist(), self.running.tolist())
        x, y = frame.x.at(corners), frame.y.at(heights)
        frame.canvas.rectangle(x[0], frame.top, x[-1] - x[0], frame.bottom - frame.top, "idle")
        ends = np.array([x[-1], x[0]]), np.array([frame.bottom, frame.bottom])
        frame.canvas.area(np.concatenate([x, ends[0]]), np.concatenate([y, ends[1]]), f"fill {self.kind}")
        return frame.canvas.svg(told)
