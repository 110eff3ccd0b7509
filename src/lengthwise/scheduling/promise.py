"""Shortest first, with a promise to each request how late arrival order may find it."""

from __future__ import annotations

from dataclasses import dataclass

from lengthwise.errors import UsageError
from lengthwise.scheduling.arrival_clock import ArrivalClock
from lengthwise.scheduling.kinetic import Place
from lengthwise.scheduling.online import OnlineConfig, OnlineScheduler
from lengthwise.types import Decision, View, WaitingRequest


@dataclass(frozen=True)
class PromiseConfig(OnlineConfig):
    """Settings of PromiseScheduler. Raises UsageError on a value out of range."""

    # How many times the longest wait of arrival order the longest wait may be (and two services; 1 is arrival order but
    # for these). At load 1.1 on 64 rows the mean wait is 0.72, 0.65, 0.59, 0.53 and 0.46 of arrival order's at 1, 1.1,
    # 1.25, 1.5 and 2, the 99th percentile of latency 1.10, 1.18, 1.29, 1.45 and 1.79 (20,000 requests, log-normal
    # lengths of median 100, known exactly).
    max_wait_factor: float = 1.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.max_wait_factor >= 1:
            raise UsageError(
                f"max_wait_factor is {self.max_wait_factor}; nobody can promise less than arrival order: 1 or more."
            )


class PromiseScheduler(OnlineScheduler):
    """The most urgent first, but the oldest as soon as its promise is due.

    **The promise.** Let F be when arrival order would have started a request, W the longest wait that arrival order
    would have given to anyone up to it (those since nothing waited for the last time), and S the longest time that any
    request runs. Then the request starts no later than F + (factor - 1) · W + 2 S. So the longest wait is at most
    `factor` times the longest wait of arrival order, and two services, however wrong the estimates are.

    **Why so.** "Arrival order" is a virtual system of as many rows, in which each request takes as long as it really
    does (`ArrivalClock`). The oldest request goes first from F + (factor - 1) · W on, once F is known; while it is not,
    from S after the earliest that F can be. Those times never fall from a request to the next, and stand no closer
    than arrival order needs for the requests between; so when the rows in service have ended (the other S), running in
    order of arrival keeps up.

    Less can't be promised. S is needed where rows are not put back, and where lengths are known only when they have
    run. W can't be the request's own wait: how long that is rests on the lengths of those before it, and by the time
    that these have run, a promise to one that came behind them would be broken.

    It holds where rows are what limits. Where memory does, the virtual system is the faster one: the oldest go first
    sooner, and what was promised is not kept.
    """

    config: PromiseConfig

    def __init__(self, config: PromiseConfig = PromiseConfig()) -> None:
        super().__init__(config)
        self._clock = ArrivalClock()
        self._running: dict[str, Place] = {}

    def decide(self, view: View) -> list[Decision]:
        if len(self._running) != len(view.running) or not self._running.keys() <= view.running.keys():
            for name in self._running.keys() - view.running.keys():
                self._clock.end(self._running.pop(name), view.now_s)
        self._clock.grow(max(1, view.free_rows + len(view.running)), view.now_s)
        return super().decide(view)

    def _next(self, now_s: float) -> Place | None:
        if returned := self._first_returned():
            return returned
        return self._clock.due(now_s, self.config.max_wait_factor) or self._queue.first(now_s)

    def _note_start(self, place: Place, now_s: float) -> None:
        if not place.request.num_cuts:
            self._clock.start(place, now_s)
            self._running[place.request.id] = place

    def _take_in(self, request: WaitingRequest, urgency: float, growth_per_s: float = 0.0) -> Place:
        place = super()._take_in(request, urgency, growth_per_s)
        if not request.num_cuts:
            self._clock.arrive(place)
        return place
