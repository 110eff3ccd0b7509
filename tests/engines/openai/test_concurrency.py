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
                limit.refused(now_s, now_s + 0.001)
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
    values = [simulate(FoundLimit(), lambda now_s: 1, 12_000, seed=seed) for seed in range(8)]
    assert max(max(one) for one in values) <= 64
    assert max(middle(one) for one in values) <= 32


def test_it_keeps_its_bounds():
    """Never below 1, never above the most, even with a server that takes anything."""
    values = simulate(FoundLimit(FoundLimitConfig(most=50)), lambda now_s: 10**6, 2000)
    assert max(values) == 50
    limit = FoundLimit()
    for at in range(20):
        limit.refused(at, at + 0.5)
        limit.answered(100, 1, at + 0.6)
        assert limit.value >= 1
    assert limit.value == 1


def test_overload_halves_once_for_all_that_were_sent_before():
    """64 refusals at the same moment are one; so are those of a server that refuses everything for a while. The next
    counts after an answer."""
    limit = FoundLimit(FoundLimitConfig(start=64))
    for _ in range(64):
        limit.refused(sent_s=1.0, now_s=2.0)
    assert limit.value == 32
    limit.refused(sent_s=2.5, now_s=3.0)
    assert limit.value == 32
    limit.answered(100, 32, 4.0)
    limit.refused(sent_s=4.0, now_s=5.0)
    assert limit.value == 16


def climb_s(num_refusals: int, to: int = 64) -> float:
    """When the limit is `to`, after so many refusals at the beginning: answers take 10 s, the server takes anything."""
    limit, now_s = FoundLimit(), 0.0
    for _ in range(num_refusals):
        limit.refused(now_s, now_s + 0.1)
        limit.answered(100, limit.value, now_s + 1)
        now_s += 2
    while limit.value < to:
        now_s += 10 / limit.value
        limit.answered(100, limit.value, now_s)
    return now_s


@pytest.mark.parametrize("num_refusals", [1, 2, 3])
def test_refusals_at_the_beginning_are_made_good(num_refusals):
    """Down to 1 after three, it is at 64 again after a few times what the climb takes without them."""
    assert climb_s(num_refusals) < 7 * climb_s(0)


@pytest.mark.parametrize("every", [50, 200])
@pytest.mark.parametrize("most", [8, 1024])
def test_a_timeout_now_and_then_changes_nothing(every, most):
    """One try in 200, or in 50, never ends, whatever runs: the number found is as large as without."""
    limit, now_s, values = FoundLimit(FoundLimitConfig(most=most)), 0.0, []
    for num in range(1, 8000):
        now_s += 10 / limit.value
        limit.answered(100, limit.value, now_s)
        if num % every == 0:
            limit.late(now_s - 0.001, now_s)
        values.append(limit.value)
    assert min(values) == 8
    assert max(values) == most


def test_timeouts_of_many_halve():
    """A server that answers nothing in time at 8 and everything at 2: it comes down to where answers are."""
    limit, now_s = FoundLimit(), 0.0
    for _ in range(100):
        now_s += 10
        for _ in range(limit.value):
            if limit.value > 2:
                limit.late(now_s - 5, now_s)
            else:
                limit.answered(100, limit.value, now_s)
        if limit.value <= 2:
            return
    pytest.fail(f"{limit.value} still run")


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


def test_answers_that_end_together_are_measured():
    """All eight end at the same moment, and eight more begin: twice as many are tried for all that."""
    limit = FoundLimit()
    for second in range(1, 20):
        for num in range(limit.value):
            limit.answered(100, limit.value - num, float(second))
    assert limit.value > 8


def test_what_was_asked_for_stays():
    """A fixed limit does not move."""
    limit = FixedLimit(7)
    limit.refused(0.0, 1.0)
    limit.late(0.0, 1.0)
    limit.answered(100, 7, 2.0)
    assert limit.value == 7
