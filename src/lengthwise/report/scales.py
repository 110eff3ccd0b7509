"""From values to places on a canvas, and the round numbers to write beside an axis."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lengthwise.report.numbers import short

Doubles = NDArray[np.float64]
Ticks = tuple[tuple[float, str], ...]

LABEL_SPACE = 62  # across, that a label takes with what is free beside it


@dataclass(frozen=True)
class Axis:
    """What an axis measures, from `low` to `high`. `ticks`: places and their labels, where round numbers won't do."""

    title: str
    low: float
    high: float
    is_log: bool = False
    ticks: Ticks = ()

    @classmethod
    def around(cls, title: str, values: ArrayLike, *, is_log: bool = False, is_from_zero: bool = False) -> Axis:
        """Wide enough for all finite values (above 0, for logarithms)."""
        found = np.asarray(values, np.float64).reshape(-1)
        found = found[np.isfinite(found) & ((found > 0) | (not is_log))]
        low, high = (float(found.min()), float(found.max())) if len(found) else (1.0, 1.0)
        if is_log:
            return cls(title, low / 1.15, high * 1.15, is_log=True)
        low = 0.0 if is_from_zero else low
        free = 0.05 * (high - low) or 0.5
        return cls(title, 0.0 if is_from_zero else low - free, high + free)


@dataclass(frozen=True)
class Scale:
    """An axis laid from `start` to `end` on the canvas."""

    axis: Axis
    start: float
    end: float

    def at(self, values: ArrayLike) -> Doubles:
        """Places of values; those beyond the axis stand at its ends."""
        axis = self.axis
        inside = np.clip(np.asarray(values, np.float64), axis.low, axis.high)
        ends = (axis.low, axis.high)
        if axis.is_log:
            inside, ends = np.log(inside), (math.log(axis.low), math.log(axis.high))
        share = (inside - ends[0]) / ((ends[1] - ends[0]) or 1.0)
        return np.asarray(self.start + share * (self.end - self.start), np.float64)

    def ticks(self, space: float = LABEL_SPACE) -> Ticks:
        """Round values within the axis, as many as have room."""
        axis = self.axis
        if axis.ticks:
            return axis.ticks
        num = max(2, int(abs(self.end - self.start) / space))
        values = _log_ticks(axis.low, axis.high, num) if axis.is_log else _even_ticks(axis.low, axis.high, num)
        return tuple((value, short(value)) for value in values)


def _even_ticks(low: float, high: float, num: int) -> list[float]:
    raw = (high - low) / num
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    values = [round(place * step, 12) for place in range(first, math.floor(high / step + 1e-9) + 1)]
    return values if len(values) > 1 else _even_ticks(low, high, num + 1)


def _log_ticks(low: float, high: float, num: int) -> list[float]:
    """1, 2 and 5 in each power of ten where they have room, else powers alone, else some of them."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1,)):
        values = [factor * 10.0**power for power in powers for factor in factors]
        values = [value for value in values if low <= value <= high]
        if len(values) <= num + 1 and len(values) > 1:
            return values
    if len(values) < 2:
        return [low, high]
    return values[:: -(-len(values) // num)]
