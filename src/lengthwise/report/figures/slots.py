"""Slots at work over time, a panel a run, on one axis of time."""

from __future__ import annotations

from collections.abc import Mapping

from lengthwise.report.charts import Kind
from lengthwise.report.charts.slots import SlotsChart
from lengthwise.report.figure import Figure, Panel, Table, Value
from lengthwise.report.numbers import percent, short, time_unit
from lengthwise.report.scales import Axis
from lengthwise.report.traces import Timeline

NUM_STRETCHES = 240  # what a screen shows apart
SAYS = "How many requests the engine works on at once. What is shaded is capacity that nobody uses."


def slots(timelines: Mapping[str, tuple[Kind, Timeline]], num_slots: int) -> Figure:
    """By the name of the run."""
    longest_s = max(timeline.span_s for _, timeline in timelines.values())
    unit_s, unit = time_unit(longest_s)
    time = Axis(f"time, {unit}", 0, longest_s / unit_s or 1.0)
    panels, columns = [], []
    stretches: list[list[float]] = []
    for name, (kind, timeline) in timelines.items():
        edges_s, running = timeline.means(NUM_STRETCHES)
        edges = edges_s / unit_s
        said = f"{name}: {percent(timeline.idle_share(num_slots))} idle, done after {short(edges[-1])} {unit}"
        panels.append(Panel(SlotsChart(time, edges, running, num_slots, kind), said, said))
        columns += [f"{name}: from, {unit}", f"{name}: slots at work"]
        stretches += [edges[:-1].tolist(), running.tolist()]
    rows: tuple[tuple[Value, ...], ...] = tuple(zip(*stretches, strict=True))
    return Figure("slots", "Slots over time", SAYS, tuple(panels), Table(tuple(columns), rows))
