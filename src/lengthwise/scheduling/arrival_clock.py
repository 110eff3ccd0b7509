"""What arrival order would have done by now: a virtual clock, kept beside the order that is really run."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from math import inf

from lengthwise.scheduling.kinetic import Place

_ROUNDING_S = 1e-6  # times that were added up in another order are the same within this


class ArrivalClock:
    """A virtual system with as many rows as the real one, in which the same requests, each as long as it takes in the
    real one, start in order of arrival.

    How long a request takes is known when it has ended, and of one that runs, that it takes no less than it has by now.
    So requests are placed in the virtual rows in order of arrival, as far as it is known which row is free first: a
    heap of the rows whose end is known, and one of those that end no sooner than a time that moves on with the real
    one. Asking is immediate; noting costs a logarithm of the rows.
    """

    def __init__(self) -> None:
        self._order: deque[Place] = deque()  # not yet placed, as they came
        self._waiting: deque[Place] = deque()  # of those, from the oldest that has not started
        self._started_s: dict[int, float] = {}  # by serial: of those that started and are not yet placed
        self._took_s: dict[int, float] = {}  # by serial: of those that ended and are not yet placed
        self._free_s: list[float] = []  # heap: when virtual rows are free whose end is known
        self._moving: list[tuple[float, int]] = []  # heap: virtual less real start, and serial, of the others
        self._open: dict[int, tuple[float, float]] = {}  # by serial: virtual and real start, of the others
        self._num_rows = 0
        self._longest_wait_s = 0.0  # of what came since nothing waited
        self._next_serial = self._first_serial = 0  # of what comes next; of what came first since nothing waited
        self._longest_service_s = 0.0

    def arrive(self, place: Place) -> None:
        self._next_serial = place.serial + 1
        self._order.append(place)
        self._waiting.append(place)

    def start(self, place: Place, now_s: float) -> None:
        """It has started in the real system."""
        self._started_s[place.serial] = now_s

    def end(self, place: Place, now_s: float) -> None:
        """It has ended in the real system, or was put back."""
        if place.serial in self._started_s:
            took_s = self._took_s[place.serial] = now_s - self._started_s[place.serial]
        else:
            virtual_s, real_s = self._open.pop(place.serial)
            took_s = now_s - real_s
            heappush(self._free_s, virtual_s + took_s)
        self._longest_service_s = max(self._longest_service_s, took_s)

    def grow(self, num_rows: int, now_s: float) -> None:
        """The real system has so many rows; those that are new here are free at once. It never has fewer here: where
        it has (memory is short), virtual starts are too early, which is the safe side."""
        while self._num_rows < num_rows:
            heappush(self._free_s, now_s)
            self._num_rows += 1

    def due(self, now_s: float, max_wait_factor: float) -> Place | None:
        """The oldest request that waits, if it has to start now (see `PromiseScheduler`)."""
        self._place(now_s)
        while self._waiting and not self._waiting[0].is_waiting:
            self._waiting.popleft()
        if not self._waiting:
            self._longest_wait_s, self._first_serial = 0.0, self._next_serial
            return None
        start_s, is_known = self._next_start_s(self._order[0].request.arrival_s, now_s)
        wait_s = self._longest_wait_to(self._order[0], start_s)
        late_s = start_s + (max_wait_factor - 1) * wait_s + (0.0 if is_known else self._longest_service_s)
        return self._waiting[0] if now_s >= late_s - _ROUNDING_S else None

    def _place(self, now_s: float) -> None:
        """Requests that started, in order of arrival, each in the virtual row that is free first, while it is known."""
        while self._order and not self._order[0].is_waiting:
            place = self._order[0]
            if place.serial in self._started_s:  # else it was removed before it started
                virtual_s, is_known = self._next_start_s(place.request.arrival_s, now_s)
                if not is_known:
                    return
                heappop(self._free_s)
                self._occupy(place, virtual_s)
            self._order.popleft()

    def _occupy(self, place: Place, virtual_s: float) -> None:
        self._longest_wait_s = self._longest_wait_to(place, virtual_s)
        real_s, took_s = self._started_s.pop(place.serial), self._took_s.pop(place.serial, None)
        if took_s is not None:
            heappush(self._free_s, virtual_s + took_s)
        else:
            self._open[place.serial] = (virtual_s, real_s)
            heappush(self._moving, (virtual_s - real_s, place.serial))

    def _longest_wait_to(self, place: Place, virtual_s: float) -> float:
        if place.serial < self._first_serial:
            return self._longest_wait_s
        return max(self._longest_wait_s, virtual_s - place.request.arrival_s)

    def _next_start_s(self, arrival_s: float, now_s: float) -> tuple[float, bool]:
        """When the next one in order of arrival starts, and True; or no sooner than when, and False."""
        while self._moving and self._moving[0][1] not in self._open:
            heappop(self._moving)
        known_s = self._free_s[0] if self._free_s else inf
        moving_s = now_s + self._moving[0][0] if self._moving else inf
        if known_s <= max(arrival_s, moving_s + _ROUNDING_S):
            return max(arrival_s, known_s), True
        return max(arrival_s, moving_s), False
