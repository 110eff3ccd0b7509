"""Continuous batching by predicted length: as soon as a row ends, the longest request that waits takes its place.

No row ever waits for a batch to end, so what order can still gain is the end of the job, where rows run empty: an
answer that is long and starts last leaves all others idle. Longest first is the classical list schedule for that
(Graham 1969). Memory can gain more: a row reserves what its answer probably needs, not what it may need at worst.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lengthwise.estimates import LengthEstimates
from lengthwise.scheduling.planning import PlanConfig, plan
from lengthwise.scheduling.queue import RowQueue
from lengthwise.scheduling.rows import Ints, Rows
from lengthwise.types import Decision, Start, View, WaitingRequest


@dataclass(frozen=True)
class RefillConfig(PlanConfig):
    """Settings of RefillScheduler. Raises UsageError on a value out of range."""

    # Requests sorted together. Only the job's end gains by order, and answers stay near the order of arrival.
    group_size: int = 4096

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_at_least_one("group_size")


# The predicted length; the negative serial number (ties go in the order in which they came); and what a start needs:
# id, tokens of prompt, answer so far, limit and grant, and whether the answer so far is thrown away.
_Place = tuple[int, int, str, int, int, int, int, bool]


class RefillScheduler:
    """Longest first by an upper quantile, into every row that is free.

    Requests form groups in arrival order, and in a group the longest go first (ties in arrival order, so with nothing
    known all stays in arrival order). Nothing starves: a group ends, and what was cut joins the group at hand; its cap
    cuts a request `max_cuts` times at most.

    While the memory holds as many requests of the next one's size as there are free rows, a row may reach its limit.
    Where it is shorter, rows are granted a quantile of their length, and go on from their tokens when that was too
    little. The next request is never passed over by a smaller one, so it starts as soon as its tokens are free.

    An engine with a queue of its own is told this order: each start has a lower priority than all before it.

    Only columns are kept of what waits, not the curves. Ids that wait must differ.
    """

    def __init__(self, config: RefillConfig = RefillConfig()) -> None:
        self.config = config
        self._fresh = RowQueue()
        self._group: list[_Place] = []  # the one at hand, ascending: the next to start is the last
        self._num_placed = 0
        self._num_started = 0
        self._removed: set[str] = set()

    def add(self, requests: Sequence[WaitingRequest], estimates: LengthEstimates) -> None:
        self._forget_removed()  # first: an id may leave and come again
        for rows in plan(requests, estimates, self.config):
            self._fresh.append(rows[~rows.was_cut])
            cut = rows[rows.was_cut]
            for place in _places(cut, self._new_serials(len(cut))):
                insort(self._group, place)

    def remove(self, request_ids: Iterable[str]) -> None:
        self._removed.update(request_ids)

    def decide(self, view: View) -> list[Decision]:
        self._forget_removed()
        starts: list[Decision] = []
        free_rows, free_kv_tokens = view.free_rows, view.free_kv_tokens
        num_waiting = len(self._group) + len(self._fresh)
        must_start = not view.running
        while num_waiting:
            if not self._group:
                self._group = self._next_group()
            _, _, id, prompt_tokens, num_tokens, max_tokens, granted_tokens, is_restart = self._group[-1]
            whole = prompt_tokens + max_tokens
            is_short = whole * free_rows > free_kv_tokens and whole * num_waiting > free_kv_tokens
            cap = num_tokens + granted_tokens if is_short else max_tokens
            if (free_rows < 1 or prompt_tokens + cap > free_kv_tokens) and not must_start:
                break
            must_start = False
            self._group.pop()
            num_waiting -= 1
            free_rows -= 1
            free_kv_tokens -= prompt_tokens + cap
            starts.append(Start(id, cap, float(-self._num_started), is_restart))
            self._num_started += 1
        return starts

    def _next_group(self) -> list[_Place]:
        rows = self._fresh.take(self.config.group_size)
        serials = self._new_serials(len(rows))
        ascending = np.argsort(-rows.predicted_tokens, kind="stable")[::-1]
        return _places(rows[ascending], serials[ascending])

    def _new_serials(self, num: int) -> Ints:
        self._num_placed += num
        return np.arange(self._num_placed - num, self._num_placed)

    def _forget_removed(self) -> None:
        """One pass for all removals since the last decision."""
        if not self._removed:
            return
        self._fresh.drop(self._removed)
        self._group = [place for place in self._group if place[2] not in self._removed]
        self._removed = set()


def _places(rows: Rows, serials: Ints) -> list[_Place]:
    place = (rows.predicted_tokens, -serials, rows.ids)
    what = (rows.prompt_tokens, rows.num_tokens, rows.max_tokens, rows.granted_tokens, rows.restarts)
    return list(zip(*(column.tolist() for column in (*place, *what)), strict=True))
