"""Queues of requests whose urgency stands still, or grows with the time that they wait."""

from __future__ import annotations

import math
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Protocol

from lengthwise.types import WaitingRequest


@dataclass(slots=True, eq=False)
class Place:
    """A request in a queue. Its urgency at time t is `urgency + growth_per_s · t`; of equals the lower `serial` goes
    first. `slot` is the queue's own note of where it stands."""

    request: WaitingRequest
    serial: int
    urgency: float
    growth_per_s: float = 0.0
    is_waiting: bool = True
    slot: int = -1


class UrgencyQueue(Protocol):
    """Places by urgency. A place is in one queue at most. Times are 0 or more and don't run backwards: an earlier one
    counts as the latest."""

    def push(self, place: Place) -> None: ...

    def first(self, now_s: float) -> Place | None:
        """The most urgent at that time; it stays."""
        ...

    def drop(self, place: Place) -> None:
        """Take a place out, wherever it stands; its `is_waiting` is False by then."""
        ...


class SteadyQueue:
    """A heap, for urgencies that don't grow. What is dropped is passed over when it comes up."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Place]] = []
        self._num_dropped = 0

    def push(self, place: Place) -> None:
        heappush(self._heap, (-place.urgency, place.serial, place))

    def first(self, now_s: float) -> Place | None:
        heap = self._heap
        while heap and not heap[0][2].is_waiting:
            heappop(heap)
            self._num_dropped -= 1
        return heap[0][2] if heap else None

    def drop(self, place: Place) -> None:
        if self._heap[0][2] is place:
            heappop(self._heap)
            return
        self._num_dropped += 1
        if self._num_dropped > 64 and 2 * self._num_dropped > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].is_waiting]
            heapify(self._heap)
            self._num_dropped = 0


class GrowingQueue:
    """A kinetic tournament, for urgencies that grow at rates of their own.

    Each node of a binary tree keeps the winner of its half and the time until which no winner in it changes. Two lines
    cross once, so looking up the first costs a logarithm of what waits, averaged over all that wait, and so do pushing
    and dropping.
    """

    def __init__(self) -> None:
        self._size = 1
        self._leaves: list[Place | None] = [None]
        self._winners: list[Place | None] = [None, None]
        self._until_s: list[float] = [math.inf, math.inf]
        self._free = [0]
        self._now_s = 0.0

    def push(self, place: Place) -> None:
        if not self._free:
            self._grow()
        place.slot = self._free.pop()
        self._set(place.slot, place)

    def first(self, now_s: float) -> Place | None:
        self._now_s = max(self._now_s, now_s)
        if self._until_s[1] <= self._now_s:
            self._refresh(1)
        return self._winners[1]

    def drop(self, place: Place) -> None:
        self._free.append(place.slot)
        self._set(place.slot, None)

    def _set(self, slot: int, place: Place | None) -> None:
        self._leaves[slot] = place
        node = self._size + slot
        self._winners[node] = place
        node //= 2
        while node:
            self._play(node)
            node //= 2

    def _refresh(self, node: int) -> None:
        """Play all matches again whose results have expired."""
        if node < self._size:
            for child in (2 * node, 2 * node + 1):
                if self._until_s[child] <= self._now_s:
                    self._refresh(child)
            self._play(node)

    def _play(self, node: int) -> None:
        left, right = self._winners[2 * node], self._winners[2 * node + 1]
        until_s = min(self._until_s[2 * node], self._until_s[2 * node + 1])
        if left is None or right is None:
            winner = left or right
        else:
            winner, loser = (left, right) if _beats(left, right, self._now_s) else (right, left)
            if loser.growth_per_s > winner.growth_per_s:
                gap = winner.urgency - loser.urgency
                until_s = min(until_s, gap / (loser.growth_per_s - winner.growth_per_s))
        self._winners[node], self._until_s[node] = winner, until_s

    def _grow(self) -> None:
        none: list[Place | None] = [None] * self._size
        leaves = self._leaves + none
        self._free = list(range(len(leaves) - 1, self._size - 1, -1))
        self._size = len(leaves)
        self._leaves = leaves
        self._winners = none + none + leaves
        self._until_s = [math.inf] * (2 * self._size)
        for node in range(self._size - 1, 0, -1):
            self._play(node)


def _beats(one: Place, other: Place, now_s: float) -> bool:
    mine = one.urgency + one.growth_per_s * now_s
    others = other.urgency + other.growth_per_s * now_s
    return mine > others or (mine == others and one.serial < other.serial)
