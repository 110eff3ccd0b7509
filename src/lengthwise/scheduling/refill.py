"""Continuous batching by predicted length: as soon as a row ends, a request that waits takes its place.

Length knowledge pays twice here. Memory: rows enter as long as what all of them will probably hold at once fits, not
what each may need at worst (`headroom`). And the job's end, where rows run empty: an answer that is long and starts
last leaves all others idle (`ending`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lengthwise.errors import UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.scheduling.ending import NUM_ROUNDS, ending_order
from lengthwise.scheduling.headroom import MemoryOutlook, num_that_fit
from lengthwise.scheduling.likely import NUM_DRAWS, LikelyRows, more_tokens
from lengthwise.scheduling.queue import RowQueue
from lengthwise.scheduling.rows import Ints
from lengthwise.types import Decision, RunningRequest, Start, View, WaitingRequest

MAX_LOOKED_AT = 8  # requests of which it is worked out at once whether they fit


@dataclass(frozen=True)
class RefillConfig:
    """Settings of RefillScheduler. Raises UsageError on a value out of range."""

    # expected: rows enter by what all will probably hold, for an engine that puts rows back when it was too much.
    # limits: every row reserves its limit.
    memory: Literal["expected", "limits"] = "limits"
    # How many standard deviations of that must fit. With 2, some 3 % of Vicuna's answers were put back where memory
    # holds 16 whole ones (played through, four draws of 1,000); with 1 five times as many, and no time was gained.
    margin: float = 2.0
    seed: int = 0  # of the lengths that are drawn

    def __post_init__(self) -> None:
        if self.memory not in ("expected", "limits"):
            raise UsageError(f"memory is {self.memory!r}; it must be 'expected' or 'limits'.")
        if not 0 <= self.margin < math.inf:
            raise UsageError(f"margin is {self.margin}; it must be a number of standard deviations, 0 or more.")


class RefillScheduler:
    """Into every row that is free, in order of arrival; the last requests of the job in the order that ends it soonest.

    What was put back goes on first. The rest goes in order of arrival, so nothing starves, until what waits is
    NUM_ROUNDS requests a row or fewer: these form a group that is ordered by length. What comes later waits for it.
    Where nothing is known, all stays in order of arrival. The next request is never passed over by a smaller one.

    An engine with a queue of its own is told this order: each start has a lower priority than all before it.

    Ids that wait must differ.
    """

    def __init__(self, config: RefillConfig = RefillConfig()) -> None:
        self.config = config
        self._returned = RowQueue(LikelyRows.empty())
        self._fresh = RowQueue(LikelyRows.empty())
        self._group = RowQueue(LikelyRows.empty())  # the next to start, in that order
        self._rng = np.random.default_rng(config.seed)
        self._ends: dict[str, Ints] = {}  # draws of what was started
        self._num_started = 0
        self._removed: set[str] = set()

    def add(self, requests: Sequence[WaitingRequest], estimates: LengthEstimates) -> None:
        self._forget_removed()  # first: an id may leave and come again
        rows = LikelyRows.of(requests, estimates, self._rng)
        was_cut = np.fromiter((request.num_cuts > 0 for request in requests), np.bool_, len(requests))
        self._returned.append(rows[was_cut])
        self._fresh.append(rows[~was_cut])

    def remove(self, request_ids: Iterable[str]) -> None:
        self._removed.update(request_ids)

    def decide(self, view: View) -> list[Decision]:
        self._forget_removed()
        self._forget_ended(view)
        running, free_rows, free_kv_tokens = list(view.running.values()), view.free_rows, view.free_kv_tokens
        starts: list[Decision] = []
        while free_rows > 0 or not running:
            rows, whence = self._next(max(1, free_rows), len(running) + free_rows, view)
            num = self._num_that_fit(rows, running, free_kv_tokens, view)
            if len(rows) and not running:
                num = max(1, num)
            started = whence.take(num)
            starts += self._start(started)
            running += _as_running(started, view.now_s)
            free_rows -= num
            free_kv_tokens -= int((started.prompt_tokens + started.max_tokens).sum())
            if num < len(rows) or num == 0:
                break
        return starts

    # -- order -------------------------------------------------------------------------------------------------

    def _next(self, num: int, num_rows: int, view: View) -> tuple[LikelyRows, RowQueue[LikelyRows]]:
        """The next to start, at most `num`, and the queue that they stand in."""
        num = num if view.kv_tokens == math.inf else min(num, MAX_LOOKED_AT)
        if not self._group and not self._returned:
            self._form_group(num, num_rows, view)
        queue = self._returned or self._group
        return queue.first(num), queue

    def _form_group(self, num: int, num_rows: int, view: View) -> None:
        """All that waits, in the order that ends it soonest; where that is much, the next in order of arrival."""
        ending = NUM_ROUNDS * num_rows
        if len(self._fresh) > ending:
            return self._group.append(self._fresh.take(min(num, len(self._fresh) - ending)))
        rows = self._fresh.take(None)
        more = rows.more_tokens
        num_beside = min(num_rows, _num_held(rows.held_tokens, more, view))
        self._group.append(rows[ending_order(rows.expected_tokens - rows.num_tokens, more, num_beside)])

    # -- memory ------------------------------------------------------------------------------------------------

    def _num_that_fit(
        self, rows: LikelyRows, running: Sequence[RunningRequest], free_kv_tokens: float, view: View
    ) -> int:
        """How many of them, from the first, fit beside what runs."""
        whole = np.cumsum(rows.prompt_tokens + rows.max_tokens)
        num = int(np.searchsorted(whole, free_kv_tokens, side="right"))
        if num == len(rows) or self.config.memory == "limits":
            return num
        waste = view.kv_block_tokens // 2  # of a row's last block, on average
        waiting = MemoryOutlook(rows.held_tokens + waste, rows.more_tokens)
        return num_that_fit(self._outlook(running, waste), waiting, view.kv_tokens, self.config.margin)

    def _outlook(self, running: Sequence[RunningRequest], waste: int) -> MemoryOutlook:
        unknown = np.zeros(NUM_DRAWS, np.int64)  # of what others started: it runs to its cap
        ends = np.array([self._ends.get(row.id, unknown) for row in running]).reshape(-1, NUM_DRAWS)
        of_row = [(row.prompt_tokens, row.num_tokens, row.cap) for row in running]
        prompt_tokens, num_tokens, caps = np.array(of_row, np.int64).reshape(-1, 3).T
        return MemoryOutlook(prompt_tokens + num_tokens + waste, more_tokens(ends, num_tokens, caps))

    # -- starts and ends ---------------------------------------------------------------------------------------

    def _start(self, rows: LikelyRows) -> Iterator[Start]:
        if self.config.memory == "expected":
            self._ends |= zip(rows.ids.tolist(), rows.ends, strict=True)
        for id, cap in zip(rows.ids.tolist(), rows.max_tokens.tolist(), strict=True):
            yield Start(id, cap, float(-self._num_started))
            self._num_started += 1

    def _forget_ended(self, view: View) -> None:
        if len(self._ends) > 2 * len(view.running) + MAX_LOOKED_AT:
            self._ends = {id: self._ends[id] for id in view.running if id in self._ends}

    def _forget_removed(self) -> None:
        """One pass for all removals since the last decision."""
        if not self._removed:
            return
        for queue in (self._returned, self._group, self._fresh):
            queue.drop(self._removed)
        self._removed = set()


def _as_running(rows: LikelyRows, now_s: float) -> list[RunningRequest]:
    columns = (rows.ids.tolist(), rows.prompt_tokens.tolist(), rows.max_tokens.tolist(), rows.num_tokens.tolist())
    return [RunningRequest(id, prompt, cap, num, now_s) for id, prompt, cap, num in zip(*columns, strict=True)]


def _num_held(held_tokens: Ints, more: Ints, view: View) -> int:
    """How many of them the memory holds beside each other, each at a time of its own."""
    if len(held_tokens) == 0 or view.kv_tokens == math.inf:
        return max(1, len(held_tokens))
    at_any_time = (more**2).sum() / (2 * more.sum())  # of a row's answer: what somebody sees who looks now and then
    return max(1, int(view.kv_tokens / (held_tokens.mean() + at_any_time)))
