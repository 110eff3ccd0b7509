"""How many rows may run beside each other."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.scheduling.headroom import MemoryOutlook, num_that_fit
from tests.scheduling.worlds import patient

NOBODY = MemoryOutlook(np.zeros(0, np.int64), np.zeros((0, 4), np.int64))


def known(held: list[int], more: list[int]) -> MemoryOutlook:
    return MemoryOutlook(np.array(held, np.int64), np.repeat(np.array(more, np.int64)[:, None], 4, axis=1))


def peak(held: list[int], more: list[int]) -> int:
    """What rows of known lengths hold at most, step by step."""
    steps = range(1, max(more) + 1)
    return max(sum(h + step for h, m in zip(held, more, strict=True) if step <= m) for step in steps)


@patient
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 60)), min_size=1, max_size=20), st.integers(0, 20))
def test_known_lengths_fit_exactly(rows: list[tuple[int, int]], num_running: int):
    """As many as a count of every step allows, and no more, whatever the margin."""
    held, more = (list(column) for column in zip(*rows, strict=True))
    num_running = min(num_running, len(rows) - 1)
    for kv_tokens in (50, 200, 500):
        fitting = 0
        while num_running + fitting < len(rows):
            upto = num_running + fitting + 1
            if peak(held[:upto], more[:upto]) > kv_tokens:
                break
            fitting += 1
        running, waiting = known(held[:num_running], more[:num_running]), known(held[num_running:], more[num_running:])
        running = running if num_running else NOBODY
        assert num_that_fit(running, waiting, kv_tokens, margin=3.0) == fitting


def test_rows_that_end_at_different_times_share_memory():
    """Two of 100 and ten of 10: when the long ones are at their end, the short ones are long gone."""
    assert num_that_fit(NOBODY, known([0] * 12, [100, 100] + [10] * 10), 200, 0.0) == 12
    assert num_that_fit(NOBODY, known([0] * 12, [100] * 12), 200, 0.0) == 2


def test_the_margin_is_in_standard_deviations():
    """Four rows of 1 or 100 tokens, one chance in two: after 100 steps they hold 200 on average, with a standard
    deviation of sqrt(4 · 1/4) · 100 = 100."""
    rows = MemoryOutlook(np.zeros(4, np.int64), np.tile([1, 1, 100, 100], (4, 1)))
    for margin, needed in ((0.0, 200), (1.0, 300), (2.0, 400)):
        assert num_that_fit(NOBODY, rows, needed, margin) == 4
        assert num_that_fit(NOBODY, rows, needed - 1, margin) < 4


def test_refuted_draws_count_for_nothing():
    """A row of which one draw in four is left."""
    left = MemoryOutlook(np.array([10]), np.array([[0, 0, 0, 40]]))
    assert num_that_fit(NOBODY, left, 50, 2.0) == 1
    assert num_that_fit(NOBODY, left, 49, 2.0) == 0
