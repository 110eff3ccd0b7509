"""Numbers as people read them."""

from __future__ import annotations

import math


def short(value: float) -> str:
    """Three digits that count, thousands apart: 0.25, 12.3, 1,768."""
    if not math.isfinite(value):
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def percent(share: float) -> str:
    """Whole percents; one digit more below ten."""
    points = 100 * share
    return f"{points:.0f} %" if abs(points) >= 10 else f"{round(points, 1):g} %"


def spoken_s(seconds: float) -> str:
    """A time as one would say it."""
    unit_s, name = time_unit(seconds)
    return f"{short(seconds / unit_s)} {name}"


def time_unit(longest_s: float) -> tuple[float, str]:
    """What to count a time of this size in: seconds of the unit, and its name."""
    for unit_s, name in ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min")):
        if longest_s >= 2 * unit_s:
            return unit_s, name
    return 1.0, "s"


def ends(interval: tuple[float, float] | None) -> str:
    """A 95 % interval in words; nothing where there is none."""
    return "" if interval is None else f"{short(interval[0])} to {short(interval[1])}"
