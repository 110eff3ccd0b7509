"""A policy's mean latency by arrival order's, by load and by quality of the predictor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lengthwise.report.charts.lines import Curve, LineChart
from lengthwise.report.figure import Figure, Panel, Table
from lengthwise.report.figures import numbers
from lengthwise.report.scales import Axis

# What is varied, where it stands among what was found, and what its axis says.
SOURCES = (
    ("load", "load"),
    ("tau", "Kendall's tau of the predictor"),
)
WORDS = {"load": "load", "tau": "predictor"}


def sweeps(found: Mapping[str, Any]) -> Figure:
    """`found` is what `lengthwise simulate --json` prints."""
    shown = [(name, title) for name, title in SOURCES if found[f"by_{name}"]]
    ratios = [ratio for name, _ in shown for ratio in found[f"by_{name}"].values()]
    y = Axis("mean latency by arrival order's", 0, min(1.5, max(1.1, 1.05 * max(one["mean"] for one in ratios))))
    panels = tuple(_panel(found, name, title, y) for name, title in shown)
    rows = tuple(
        (WORDS[name], float(level), *numbers(one)) for name, _ in shown for level, one in found[f"by_{name}"].items()
    )
    says = (
        f"The policy “{found['asked']}” at other loads, and with worse and better predictors: below the dashed line "
        "requests come sooner on average. The shaded band is a 95 % interval."
    )
    table = Table(("by", "level", "mean latency by arrival order's", "from", "to"), rows)
    return Figure("from-where-on", "From where on it pays", says, panels, table)


def _panel(found: Mapping[str, Any], name: str, title: str, y: Axis) -> Panel:
    ratios = found[f"by_{name}"]
    levels = np.array([float(level) for level in ratios])
    means = np.array([one["mean"] for one in ratios.values()])
    ends = np.array([one["ci95"] or (one["mean"], one["mean"]) for one in ratios.values()], np.float64)
    curve = Curve(found["asked"], "ours", levels, means, ends[:, 0], ends[:, 1], has_dots=True)
    start = found[f"pays_from_{name}"]
    said = f"By {WORDS[name]}: it pays " + ("at none of these" if start is None else f"from {start:g} on")
    return Panel(LineChart(Axis.around(title, levels), y, (curve,), no_gain_from=1.0), said, said)
