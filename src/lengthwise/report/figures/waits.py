"""The longest wait of requests, by the length of their answers."""

from __future__ import annotations

import numpy as np

from lengthwise.report.charts.lines import Curve, LineChart
from lengthwise.report.figure import Figure, Panel, Table, Value
from lengthwise.report.figures import Traces
from lengthwise.report.numbers import short
from lengthwise.report.scales import Axis
from lengthwise.simulation.workload import Ints

MIN_REQUESTS = 10  # of a length: of fewer the longest wait says little
SAYS = (
    "What letting short answers go first costs the long ones: the longest time that any request with an answer of "
    "such a length waits for its start."
)


def waits(traces: Traces, answer_tokens: Ints) -> Figure:
    """`answer_tokens` are those of the traces' requests (n). Lengths from a power of two to the next stand together."""
    powers = np.floor(np.log2(answer_tokens)).astype(np.int64)
    counts = {int(power): int((powers == power).sum()) for power in np.unique(powers)}
    kept = [power for power, num in counts.items() if num >= MIN_REQUESTS] or [max(counts)]
    longest = {
        name: np.array([trace.outcome.wait_s[powers == power].max() for power in kept])
        for name, (_, trace) in traces.items()
    }
    ticks = tuple((2.0**power, short(2.0**power)) for power in (*kept, kept[-1] + 1))
    x = Axis("tokens of the answer", 2.0 ** kept[0] / 1.1, 2.0 ** (kept[-1] + 1) * 1.1, is_log=True, ticks=ticks)
    y = Axis.around("longest wait, s", list(longest.values()), is_from_zero=True)
    middles = 2.0 ** (np.array(kept) + 0.5)
    curves = tuple(Curve(name, kind, middles, longest[name], has_dots=True) for name, (kind, _) in traces.items())
    rows: list[tuple[Value, ...]] = []
    for place, power in enumerate(kept):
        seconds = (float(column[place]) for column in longest.values())
        rows.append((f"{2**power} to {2 ** (power + 1) - 1}", counts[power], *seconds))
    table = Table(("answer, tokens", "requests", *(f"{name}: longest wait, s" for name in longest)), tuple(rows))
    told = "; ".join(f"{name}: at most {short(float(column.max()))} s" for name, column in longest.items())
    panel = Panel(LineChart(x, y, curves), told)
    return Figure("waits", "The longest wait, by length of the answer", SAYS, (panel,), table)
