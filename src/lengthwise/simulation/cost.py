"""The time of many steps of an engine, in closed form."""

from __future__ import annotations

import math


def steps_s(num_steps: int, first_s: float, growth_s: float) -> float:
    """Seconds of steps of which the first takes `first_s` and each `growth_s` more than the one before."""
    return num_steps * (first_s + growth_s * (num_steps - 1) / 2)


def steps_until(wanted_s: float, first_s: float, growth_s: float) -> int:
    """The fewest steps, at least one, that take `wanted_s` or longer."""
    if wanted_s <= first_s:
        return 1
    if growth_s > 0:
        linear = first_s - growth_s / 2
        root = 2 * wanted_s / (linear + math.sqrt(linear * linear + 2 * growth_s * wanted_s))
    else:
        root = wanted_s / first_s
    num = math.ceil(root)
    while num > 1 and steps_s(num - 1, first_s, growth_s) >= wanted_s:  # rounding
        num -= 1
    while steps_s(num, first_s, growth_s) < wanted_s:
        num += 1
    return num
