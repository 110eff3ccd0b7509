"""How fast the machine is just now: it changes within minutes, and the rows of a table take an hour."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable

NUM_REQUESTS = 32  # some seconds with the bundled model
NUM_KEPT = 5  # a disturbance of a few seconds is no pace
MAX_AGE_S = 300.0


class Pace:
    """Requests/s of the same few requests, answered by `answer` (vanilla batches), between what is measured."""

    def __init__(self, num_requests: int, answer: Callable[[], object]) -> None:
        self._num_requests, self._answer = num_requests, answer
        self._seen: deque[tuple[float, float]] = deque(maxlen=NUM_KEPT)  # (when, requests/s)

    def is_known(self) -> bool:
        """Whether it was measured in the last minutes."""
        return bool(self._seen) and time.perf_counter() - self._seen[-1][0] <= MAX_AGE_S

    def measured(self) -> float:
        """Once more; gives the median of the last minutes. A model's first passes are slower, and don't count."""
        if not self._seen:
            self._answer()
        started_s = time.perf_counter()
        self._answer()
        ended_s = time.perf_counter()
        self._seen.append((ended_s, self._num_requests / (ended_s - started_s)))
        return statistics.median(rate for when_s, rate in self._seen if ended_s - when_s <= MAX_AGE_S)
