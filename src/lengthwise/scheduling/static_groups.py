"""What schedulers of static batches have in common: groups by arrival, sorted, taken from the front in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np

from lengthwise.estimates import LengthEstimates
from lengthwise.scheduling.planning import PlanConfig, plan
from lengthwise.scheduling.queue import RowQueue
from lengthwise.scheduling.rows import Rows
from lengthwise.types import Decision, View, WaitingRequest


class StaticGroups(ABC):
    """Requests form groups of `group_size` in arrival order (None: all that wait); a group is sorted by predicted
    length (ties in arrival order, so with nothing known all stays in arrival order) and taken from the front in
    batches, each into an empty engine. What was cut is collected and planned as a group of its own. A request that
    comes back for another reason (`memory`, `cancelled`) is treated alike. Nothing starves: a group ends, collected
    rows form the next after `groups_per_collection` groups at the latest, and after `max_cuts` cuts a row has its full
    limit.
    """

    def __init__(
        self, planning: PlanConfig, group_size: int | None, groups_per_collection: int, longest_first: bool
    ) -> None:
        self._planning = planning
        self._group_size = group_size
        self._groups_per_collection = groups_per_collection
        self._longest_first = longest_first
        self._fresh = RowQueue(Rows.empty())
        self._collected = RowQueue(Rows.empty())
        self._group = Rows.empty()  # what is left of it, in the order in which it runs
        self._num_groups = 0  # of new requests since cut rows were last planned
        self._removed: set[str] = set()

    @abstractmethod
    def _next_batch(self, view: View) -> tuple[int, int]:
        """Of the group: the rows of the next batch, at least one, and the steps that it may make."""

    def _kept(self, rows: Rows, requests: Sequence[WaitingRequest], estimates: LengthEstimates) -> Rows:
        """What is kept of requests that wait, `rows` at least."""
        return rows

    def add(self, requests: Sequence[WaitingRequest], estimates: LengthEstimates) -> None:
        self._forget_removed()  # first: an id may leave and come again
        start = 0
        for planned in plan(requests, estimates, self._planning):
            piece = slice(start, start + len(planned))
            rows = self._kept(planned, requests[piece], estimates[piece])
            start += len(planned)
            self._fresh.append(rows[~rows.was_cut])
            self._collected.append(rows[rows.was_cut])

    def remove(self, request_ids: Iterable[str]) -> None:
        self._removed.update(request_ids)

    def decide(self, view: View) -> list[Decision]:
        self._forget_removed()
        if view.running:
            return []
        if not len(self._group):
            self._group = self._next_group()
        if not len(self._group):
            return []
        num, num_steps = self._next_batch(view)
        batch, self._group = self._group[:num], self._group[num:]
        if self._is_last and self._planning.on_cut == "continue":
            num_steps = max(num_steps, _whole_steps(batch, view.free_kv_tokens))
        return [*batch.starts(num_steps)]

    @property
    def _is_last(self) -> bool:
        """Nothing waits behind the batch that was taken. It is not cut, memory permitting: what it left would run in a
        batch of its own."""
        return not (len(self._group) or len(self._fresh) or len(self._collected))

    def _next_group(self) -> Rows:
        is_due = self._num_groups >= self._groups_per_collection
        if len(self._collected) and (is_due or not len(self._fresh)):
            self._num_groups = 0
            return self._in_order(self._collected.take(None))
        self._num_groups += 1
        return self._in_order(self._fresh.take(self._group_size))

    def _in_order(self, rows: Rows) -> Rows:
        """Sorted by predicted length, ties as they came."""
        key = -rows.predicted_tokens if self._longest_first else rows.predicted_tokens
        return rows[np.argsort(key, kind="stable")]

    def _forget_removed(self) -> None:
        """One pass for all removals since the last decision."""
        if not self._removed:
            return
        self._fresh.drop(self._removed)
        self._collected.drop(self._removed)
        self._group = self._group.without(self._removed)
        self._removed = set()


def _whole_steps(batch: Rows, free_kv_tokens: float) -> int:
    """Up to all its rows' limits, where these fit; else 0."""
    whole = int((batch.prompt_tokens + batch.max_tokens).sum())
    return int(batch.room_tokens.max()) if whole <= free_kv_tokens else 0
