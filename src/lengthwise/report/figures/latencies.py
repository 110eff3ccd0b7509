"""Latency by how rare it is: one in ten requests takes as long or longer, one in a hundred, ..."""

from __future__ import annotations

import math

import numpy as np

from lengthwise.report.charts.lines import Curve, LineChart
from lengthwise.report.figure import Figure, Panel, Table
from lengthwise.report.figures import Traces
from lengthwise.report.numbers import short
from lengthwise.report.scales import Axis

NUM_POINTS = 40
MARKS = ((1, "all"), (2, "1 in 2"), (10, "1 in 10"), (100, "1 in 100"), (1000, "1 in 1,000"))
SAYS = (
    "Read from left to right: half of the requests take as long as the curve says at “1 in 2”, or longer, one in a "
    "hundred as long as at “1 in 100”. Lower is better; the right end is what the unlucky get."
)


def latencies(traces: Traces) -> Figure:
    num = min(len(trace.outcome.arrival_s) for _, trace in traces.values())
    rarest = min(3.5, max(1.0, math.log10(num)))
    # Half of the points among the commonest nine in ten, where all the others would be far apart.
    common = -np.log10(1 - np.linspace(0.0, 0.9, NUM_POINTS, endpoint=False))
    places = np.unique(np.concatenate([common, np.linspace(1.0, rarest, NUM_POINTS)]))
    shares = 1 - 10.0**-places
    found = {name: np.quantile(trace.outcome.latency_s, shares) for name, (_, trace) in traces.items()}
    ticks = tuple((math.log10(one), said) for one, said in MARKS if math.log10(one) <= rarest)
    x = Axis("so many take as long, or longer", 0.0, rarest, ticks=ticks)
    y = Axis.around("latency, s", list(found.values()), is_log=True)
    curves = tuple(Curve(name, kind, places, found[name]) for name, (kind, _) in traces.items())
    halves = {name: float(np.interp(math.log10(2), places, seconds)) for name, seconds in found.items()}
    told = "; ".join(f"{name}: half take {short(seconds)} s or longer" for name, seconds in halves.items())
    rows = tuple(zip(shares.tolist(), *(seconds.tolist() for seconds in found.values()), strict=True))
    table = Table(("share of requests", *(f"{name}: done within, s" for name in found)), rows)
    panel = Panel(LineChart(x, y, curves), told)
    return Figure("latency", "How long requests take, and the unlucky ones", SAYS, (panel,), table)
