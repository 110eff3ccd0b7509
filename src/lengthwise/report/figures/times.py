"""How long the same answers take in other orders, and how long they really took."""

from __future__ import annotations

from lengthwise.report.again import BASE, Again
from lengthwise.report.charts.bars import Bar, BarChart, Meanings
from lengthwise.report.figure import Figure, Panel, Table, Value
from lengthwise.report.figures import numbers
from lengthwise.report.numbers import spoken_s
from lengthwise.report.scales import Axis

MEANINGS: Meanings = (
    ("base", "batches that wait for their longest answer"),
    ("peer", "free slots filled at once"),
    ("ours", "by predicted lengths"),
    ("oracle", "by true lengths"),
)
SAYS = (
    "The time from the first start to the last token, for the answers that came: shorter bars are better. Simulated, "
    "on an engine as fast as this one was; the thin lines are 95 % intervals over draws of the answers."
)


def times(again: Again) -> Figure:
    base_s = again.figures[BASE].mean("makespan_s")
    bars: list[Bar] = []
    rows: list[tuple[Value, ...]] = []
    for name, kind in again.kinds.items():
        seconds, ratio = again.figures[name].mean("makespan_s"), again.ratios[name]
        interval = None if ratio.ci95 is None or name == BASE else (ratio.ci95[0] * base_s, ratio.ci95[1] * base_s)
        bars.append(Bar(name, kind, ratio.mean * base_s, spoken_s(seconds), interval))
        rows.append((name, seconds, *numbers(vars(ratio))))
    longest = max(max(bar.value, *(bar.interval or (0.0,))) for bar in bars)
    chart = BarChart(Axis("seconds", 0, 1.05 * longest), tuple(bars), base_s, MEANINGS)
    told = ", ".join(f"{bar.name}: {bar.said}" for bar in bars)
    table = Table(("order", "seconds", f"by that of {BASE}", "from", "to"), tuple(rows))
    return Figure("times", "How long the answers take", SAYS, (Panel(chart, told),), table)
