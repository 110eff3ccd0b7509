"""Orders for requests that come while others run: whoever is most urgent starts as soon as a row is free."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lengthwise.errors import UsageError
from lengthwise.estimates import MAX_TOKENS, LengthEstimates
from lengthwise.scheduling.kinetic import GrowingQueue, Place, SteadyQueue, UrgencyQueue
from lengthwise.scheduling.planning import is_unknown
from lengthwise.scheduling.rows import int_column
from lengthwise.scheduling.urgency import Urgency, shortest_mean, tokens_left
from lengthwise.types import Decision, Start, View, WaitingRequest


@dataclass(frozen=True)
class OnlineConfig:
    """Settings of OnlineScheduler. Raises UsageError on a value out of range."""

    # What goes first. The mean is what waiting costs: the least of it is to be had in this order.
    urgency: Urgency = shortest_mean

    # How fast waiting makes urgent: urgency × (1 + this · seconds waited ÷ expected tokens). 0: not at all. At the
    # tokens per second that a row writes, a request that has waited as long as its answer takes is twice as urgent.
    # With no order but this, it is the highest response ratio first, whatever the rate.
    ageing_tokens_per_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.ageing_tokens_per_s < float("inf"):
            raise UsageError(f"ageing_tokens_per_s is {self.ageing_tokens_per_s}; it must be a number, 0 or more.")


class OnlineScheduler:
    """The most urgent request that waits takes the next free row; ties go in the order in which requests were added.

    Each start has its request's own limit: rows are never cut or put back. The next request is never passed over by a
    smaller one, so it starts as soon as its tokens are free. A request that comes back (the engine cut it to make
    room) goes ahead of all that never ran. Of which nothing is known, that counts as long as lengths are counted
    (131,072 tokens), so such requests stay in arrival order among themselves.

    An engine with a queue of its own is told this order: each start has a lower priority than all before it.

    Adding, removing and starting cost a logarithm of what waits; curves are not kept. Ids that wait must differ.
    """

    def __init__(self, config: OnlineConfig = OnlineConfig()) -> None:
        self.config = config
        self._queue: UrgencyQueue = GrowingQueue() if config.ageing_tokens_per_s else SteadyQueue()
        self._returned: deque[Place] = deque()
        self._places: dict[str, Place] = {}
        self._num_placed = 0
        self._num_started = 0

    def add(self, requests: Sequence[WaitingRequest], estimates: LengthEstimates) -> None:
        written = np.array([request.num_tokens for request in requests], np.float64)
        is_unknown = _is_unknown(requests, estimates)
        urgencies = self.config.urgency(estimates, written)
        if np.count_nonzero(is_unknown):
            nothing = LengthEstimates.unknown(1).capped(MAX_TOKENS)
            urgencies = np.where(is_unknown, self.config.urgency(nothing, np.zeros(1)), urgencies)
        if not self.config.ageing_tokens_per_s:
            for request, urgency in zip(requests, urgencies.tolist(), strict=True):
                self._take_in(request, urgency)
            return
        tokens = np.where(is_unknown, MAX_TOKENS, tokens_left(estimates.mean(), written))
        growths_per_s = urgencies * self.config.ageing_tokens_per_s / tokens
        for request, urgency, growth in zip(requests, urgencies.tolist(), growths_per_s.tolist(), strict=True):
            self._take_in(request, urgency - growth * request.arrival_s, growth)

    def remove(self, request_ids: Iterable[str]) -> None:
        for name in request_ids:
            place = self._places.get(name)
            if place is not None:
                self._take_out(place)

    def decide(self, view: View) -> list[Decision]:
        must_start = not view.running
        free_rows, free_kv_tokens = view.free_rows, view.free_kv_tokens
        if not self._places or (free_rows < 1 and not must_start):
            return []
        starts: list[Decision] = []
        while place := self._next(view.now_s):
            request = place.request
            tokens = request.prompt_tokens + request.max_tokens
            if (free_rows < 1 or tokens > free_kv_tokens) and not must_start:
                break
            must_start = False
            free_rows -= 1
            free_kv_tokens -= tokens
            self._take_out(place)
            self._note_start(place, view.now_s)
            starts.append(Start(request.id, request.max_tokens, float(-self._num_started)))
            self._num_started += 1
        return starts

    def _next(self, now_s: float) -> Place | None:
        """Whoever is to start, None when nothing waits."""
        return self._first_returned() or self._queue.first(now_s)

    def _note_start(self, place: Place, now_s: float) -> None:
        """For orders that keep an account of what starts."""

    def _first_returned(self) -> Place | None:
        while self._returned and not self._returned[0].is_waiting:
            self._returned.popleft()
        return self._returned[0] if self._returned else None

    def _take_in(self, request: WaitingRequest, urgency: float, growth_per_s: float = 0.0) -> Place:
        place = Place(request, self._num_placed, urgency, growth_per_s)
        self._num_placed += 1
        self._places[request.id] = place
        if request.num_cuts:
            self._returned.append(place)
        else:
            self._queue.push(place)
        return place

    def _take_out(self, place: Place) -> None:
        del self._places[place.request.id]
        place.is_waiting = False
        if not place.request.num_cuts:
            self._queue.drop(place)


def _is_unknown(requests: Sequence[WaitingRequest], estimates: LengthEstimates) -> NDArray[np.bool_]:
    """See `planning.is_unknown`. Most curves fall, and requests come one by one: limits are read only where one
    doesn't."""
    never_falls: NDArray[np.bool_] = estimates.survival[:, -1] >= 1
    return is_unknown(estimates, int_column(requests, "max_tokens")) if np.count_nonzero(never_falls) else never_falls
