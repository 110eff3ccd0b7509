"""The number of requests at once, found against simulated servers."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest

from lengthwise.engines.openai.concurrency import FixedLimit, FoundLimit, FoundLimitConfig

TOKENS_PER_S = 30.0  # of one request alone


def simulate(
    limit: FoundLimit, capacity: Callable[[float], int], num: int, refuses_above: int | None = None, seed: int = 0
) -> list[int]:
    """The limit after each of `num` answers of log-normal length, from a server that answers `capacity(now)` at full
    speed and more of them slower in proportion; above `refuses_above` it refuses."""
    rng = random.Random(seed)
    ends: list[tuple[float, float, int]] = []
    now_s, values = 0.0, []
    while len(values) < num:
        while len(ends) < limit.value:
            if refuses_above is not None and len(ends) >= refuses_above:
                limit.overloaded(now_s, now_s + 0.001)
                break
            tokens = max(1, round(100 * rng.lognormvariate(0, 0.8)))
            slowness = max(1.0, (len(ends) + 1) / capacity(now_s))
            heapq.heappush(ends, (now_s + tokens * slowness / TOKENS_PER_S, now_s, tokens))
        num_running = len(ends)
        now_s, _, tokens = heapq.heappop(ends)
        limit.answered(tokens, num_running, now_s)
        values.append(limit.value)
    return values


def middle(values: list[int]) -> int:
    return sorted(values)[len(values) // 2]


@pytest.mark.parametrize("capacity", [32, 100, 256])
def test_it_finds_what_a_server_can_do(capacity):
    """Within 3,000 answers it stands at a number that has at least 85 % of the best throughput, and at no more than
    twice what the server can do."""
    for seed in range(5):
        found = middle(simulate(FoundLimit(), lambda now_s: capacity, 6000, seed=seed)[3000:])
        assert 0.85 * capacity <= found <= 2 * capacity, found


def test_it_stays_low_where_more_gains_nothing():
    """A server that answers one after the other is not flooded, whatever chance says of its speed."""
    assert max(max(simulate(FoundLimit(), lambda now_s: 1, 12_000, seed=seed)) for seed in range(8)) <= 32


def test_it_keeps_its_bounds():
    """Never below 1, never above the most, even with a server that takes anything."""
    values = simulate(FoundLimit(FoundLimitConfig(most=50)), lambda now_s: 10**6, 2000)
    assert max(values) == 50
    limit = FoundLimit()
    for at in range(20):
        limit.overloaded(at, at + 0.5)
        assert limit.value >= 1
    assert limit.value == 1


def test_overload_halves_once_for_all_that_were_sent_before():
    """64 refusals at the same moment are one."""
    limit = FoundLimit(FoundLimitConfig(start=64))
    for _ in range(64):
        limit.overloaded(sent_s=1.0, now_s=2.0)
    assert limit.value == 32
    limit.overloaded(sent_s=2.5, now_s=3.0)
    assert limit.value == 16


def test_it_comes_near_a_limit_that_refuses():
    """A server that refuses above 40: most of the time between 15 and 40 run."""
    values = simulate(FoundLimit(), lambda now_s: 10**6, 8000, refuses_above=40)[2000:]
    assert sum(15 <= value <= 50 for value in values) > 0.8 * len(values), middle(values)


def test_it_follows_a_server_that_grows():
    """More servers behind the address after a while: more is tried again and kept."""
    values = simulate(FoundLimit(), lambda now_s: 16 if now_s < 600 else 64, 20_000)
    assert middle(values[-1000:]) >= 40


def test_a_tail_that_runs_empty_changes_nothing():
    """While fewer than half run, nothing is measured: the end of a job says nothing of the server."""
    limit = FoundLimit()
    for num in range(1000):
        limit.answered(100, num_running=3, now_s=float(num))
        assert limit.value == 8


def test_what_was_asked_for_stays():
    """A fixed limit does not move."""
    limit = FixedLimit(7)
    limit.overloaded(0.0, 1.0)
    limit.answered(100, 7, 2.0)
    assert limit.value == 7
