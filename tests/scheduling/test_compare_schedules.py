"""The simulation from which the defaults come, and what it says of them."""

from __future__ import annotations

import pytest
from scipy.stats import kendalltau

from lengthwise.scheduling.named import default
from tests.scheduling.compare_schedules import SCHEDULES, Setting, World, gain, grouped

WORLDS = [World.drawn(1000, 0.6, seed) for seed in range(2)]
ORACLE = [World.drawn(1000, 1.0, seed) for seed in range(2)]
SETTING = Setting(max_rows=32)


def test_lengths_are_like_vicuna_s():
    """Mean 126 and p90 281 were recorded with a cap of 512; the drawn ones are near."""
    lengths = sorted(min(length, 512) for world in WORLDS for length in world.lengths.values())
    assert 120 < sum(lengths) / len(lengths) < 150
    assert 260 < lengths[int(0.9 * len(lengths))] < 310


@pytest.mark.parametrize("tau", [0.3, 0.6])
def test_the_predictor_is_as_good_as_asked(tau: float):
    """Kendall's tau between predicted and natural length."""
    world = World.drawn(4000, tau, 0)
    assert kendalltau(world.estimates.median, list(world.lengths.values())).statistic == pytest.approx(tau, abs=0.03)


def test_the_default_is_well_above_arrival_order():
    """At 32 rows in equal memory: at least 1.3 times, a step of the way to what an oracle gains."""
    known = gain(default, WORLDS, SETTING)
    assert 1.3 < known < gain(default, ORACLE, SETTING)


def test_each_part_of_the_default_pays():
    """Caps with continuation beat order alone, which beats caps with recomputation; all beat the paper's table."""
    gains = {name: gain(make, WORLDS, SETTING) for name, make in SCHEDULES.items()}
    assert gains["sorted, caps, continue (default)"] > 1.05 * gains["sorted, no caps"]
    assert gains["sorted, no caps"] > gains["sorted, caps, restart"] > gains["the paper's, its table"]


def test_nothing_is_gained_by_knowing_nothing():
    """Estimates that say nothing give arrival order's time exactly."""
    world = World(WORLDS[0].lengths, WORLDS[0].estimates.unknown(1000))
    assert gain(default, [world], SETTING) == pytest.approx(1)


def test_short_memory_gains_most():
    """In the memory of 16 whole answers, caps let more rows in: at least 1.8 times."""
    assert gain(default, WORLDS, Setting(512, kv_tokens=16 * 552)) > 1.8 > gain(grouped(fcr=False), WORLDS, SETTING)
