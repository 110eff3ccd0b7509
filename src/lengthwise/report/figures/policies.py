"""Every policy's latency by arrival order's, on average and of the slowest hundredth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lengthwise.report.charts import Kind
from lengthwise.report.charts.bars import Bar, BarChart, Meanings
from lengthwise.report.figure import Figure, Panel, Table
from lengthwise.report.figures import numbers
from lengthwise.report.scales import Axis

MAX_SHOWN = 2.0  # bars beyond it are cut off, and say their number
PANELS = (("mean_ratio", "On average"), ("p99_ratio", "The slowest hundredth"))
SAYS = (
    "How long a request takes from its arrival to its last token, relative to arrival order: shorter bars are better. "
    "The thin lines are 95 % intervals."
)


def policies(found: Mapping[str, Any], oracle_name: str) -> Figure:
    """`found` is what `lengthwise simulate --json` prints."""
    named: list[tuple[str, Kind, Mapping[str, Any]]] = [
        (_title(name), _kind(name, found), one) for name, one in found["policies"].items()
    ]
    named.append((oracle_name, "oracle", {"mean_ratio": found["oracle_ratio"], "p99_ratio": None}))
    panels = []
    for key, title in PANELS:
        bars = tuple(_bar(name, kind, one[key]) for name, kind, one in named if one[key] is not None)
        top = min(MAX_SHOWN, 1.05 * max(max(bar.value, *(bar.interval or (0,))) for bar in bars))
        chart = BarChart(Axis("times arrival order's", 0, max(1.1, top)), bars, 1.0, _meanings(found))
        panels.append(Panel(chart, f"{title}: {_spoken(bars)}", title))
    columns = ("policy", *(f"{which}{end}" for which in ("mean", "p99") for end in (_BY, ", from", ", to")))
    rows = tuple((name, *numbers(one["mean_ratio"]), *numbers(one["p99_ratio"])) for name, _, one in named)
    return Figure("policies", "Which order, and what it does", SAYS, tuple(panels), Table(columns, rows))


_BY = " latency by arrival order's"


def _meanings(found: Mapping[str, Any]) -> Meanings:
    ours = "what is advised" if found["verdict"] == "gain" else f"{found['asked']}: the best that spares the slowest"
    return ("base", "arrival order"), ("ours", ours), ("peer", "other orders"), ("oracle", "with true lengths")


def _title(name: str) -> str:
    return "arrival order" if name == "arrival" else name


def _kind(name: str, found: Mapping[str, Any]) -> Kind:
    if name == "arrival":
        return "base"
    return "ours" if name == found["asked"] else "peer"


def _bar(name: str, kind: Kind, ratio: Mapping[str, Any]) -> Bar:
    interval = ratio["ci95"] if kind != "base" else None
    return Bar(name, kind, ratio["mean"], f"{ratio['mean']:.2f}", None if interval is None else tuple(interval))


def _spoken(bars: Sequence[Bar]) -> str:
    return ", ".join(f"{bar.name} {bar.said}" for bar in bars)
