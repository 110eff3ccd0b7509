"""Where it pays: loads across, slots down, a panel for each spread of lengths."""

from __future__ import annotations

from collections.abc import Sequence

from lengthwise.report.charts.heat import Cell, HeatChart
from lengthwise.report.figure import Figure, Panel, Table
from lengthwise.report.figures import numbers
from lengthwise.report.numbers import ends
from lengthwise.report.pays import Place

SPREADS = {0.5: "Lengths more alike than in this log", 1.0: "Lengths as in this log", 1.5: "Lengths further apart"}
COLUMNS = (
    "spread",
    "deviation of log length",
    "slots",
    "load",
    "mean latency by arrival order's",
    "from",
    "to",
    "p99 latency by arrival order's",
    "pays",
)


def places(found: Sequence[Place], name: str) -> Figure:
    spreads = sorted({place.spread for place in found})
    panels = tuple(_panel([place for place in found if place.spread == spread]) for spread in spreads)
    rows = tuple(
        (
            place.spread,
            place.deviation,
            place.slots,
            place.load,
            *numbers(vars(place.mean)),
            place.p99.mean,
            "yes" if place.pays else "no",
        )
        for place in found
    )
    says = (
        f"How much mean latency the policy “{name}” saves on engines with fewer and more slots, with fewer and more "
        "requests. Grey: nothing is gained, because it is less than 3 %, or may be chance."
    )
    return Figure("where", "Where it pays", says, panels, Table(COLUMNS, rows))


def _panel(here: Sequence[Place]) -> Panel:
    slots, loads = sorted({place.slots for place in here}), sorted({place.load for place in here})
    at = {(place.slots, place.load): place for place in here}
    cells = tuple(tuple(_cell(at[row, column]) for column in loads) for row in slots)
    title = f"{SPREADS[here[0].spread]} (standard deviation of log length {here[0].deviation:.2f})"
    chart = HeatChart("slots", "load", tuple(map(str, slots)), tuple(f"{load:g}" for load in loads), cells)
    return Panel(chart, f"{title}: pays in {sum(place.pays for place in here)} of {len(here)} cells", title)


def _cell(place: Place) -> Cell:
    said = f"{place.slots} slots, load {place.load:g}: mean latency {place.mean.mean:.3f} times arrival order's"
    if place.mean.ci95 is not None:
        said += f" (95 %: {ends(place.mean.ci95)})"
    said += f", the slowest hundredth's {place.p99.mean:.2f} times"
    return Cell(
        1 - place.mean.mean if place.mean.is_gain else None, said, is_dear=place.mean.is_gain and not place.pays
    )
