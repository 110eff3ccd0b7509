"""How many rows may run beside each other, when what each will take is known by its chances only.

Rows end at different times, so what must fit is not the sum of what each takes at its end: it is what those still
running hold at any one time. (LightLLM's Past-Future scheduler looks ahead so by the lengths of past answers, arXiv
2507.10150; here each row has chances of its own.) The peak is the expected one and a few standard deviations more; when
it is exceeded after all, a row is put back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lengthwise.scheduling.rows import Doubles, Ints

MAX_TIMES = 32  # at which memory is looked at. Played through, 16, 32 and 64 put back 113, 46 and 34 of 1,000 rows


@dataclass(frozen=True)
class MemoryOutlook:
    """n rows: tokens that each holds in the cache (n), and how many may yet come, by draw (n × draws; 0: this draw is
    refuted, not all of a row are)."""

    held_tokens: Ints
    more_tokens: Ints

    def at(self, times: Ints) -> tuple[Doubles, Doubles]:
        """Mean and variance of the tokens that each row holds after so many more steps (t): n × t."""
        is_alive = self.more_tokens.astype(np.int32)[:, :, None] >= times.astype(np.int32)
        num_alive = is_alive.view(np.int8).sum(axis=1, dtype=np.int16)
        chance = num_alive / np.count_nonzero(self.more_tokens, axis=1)[:, None]
        tokens = self.held_tokens[:, None] + times
        return chance * tokens, chance * (1 - chance) * tokens**2


def num_that_fit(running: MemoryOutlook, waiting: MemoryOutlook, kv_tokens: float, margin: float) -> int:
    """How many of those that wait, from the first, may run beside those that run: the memory that they need is at no
    time more than `margin` standard deviations from being too much."""
    rows = MemoryOutlook(
        np.concatenate([running.held_tokens, waiting.held_tokens]),
        np.concatenate([running.more_tokens, waiting.more_tokens]),
    )
    mean, variance = (column.cumsum(axis=0)[len(running.held_tokens) :] for column in rows.at(_times(rows.more_tokens)))
    peaks = (mean + margin * np.sqrt(variance)).max(axis=1)
    return int(np.searchsorted(np.maximum.accumulate(peaks), kv_tokens, side="right"))


def _times(more_tokens: Ints) -> Ints:
    """Steps after which rows may end: memory grows until then, and falls behind. All, where they are few."""
    possible = np.sort(more_tokens[more_tokens > 0])
    ends = _distinct(possible)
    if len(ends) <= MAX_TIMES:
        return ends
    return _distinct(possible[np.linspace(0, len(possible) - 1, MAX_TIMES).astype(np.int64)])


def _distinct(ascending: Ints) -> Ints:
    is_new = np.ones(len(ascending), np.bool_)
    np.not_equal(ascending[1:], ascending[:-1], out=is_new[1:])
    found: Ints = ascending[is_new]
    return found
