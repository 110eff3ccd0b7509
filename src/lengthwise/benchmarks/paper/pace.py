"""How fast the machine is just now: it changes within minutes, and the rows of a table take an hour."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

NUM_REQUESTS = 32  # some seconds with the bundled model
JUST_NOW_S = 1.0  # an older pace may be the machine's no more


class Pace:
    """Requests/s of the same few requests, answered by `answer` (vanilla batches), beside what is measured."""

    def __init__(self, num_requests: int, answer: Callable[[], object]) -> None:
        self._num_requests, self._answer = num_requests, answer
        self._per_s, self._at_s = 0.0, -math.inf
        self._is_warm = False

    def now(self) -> float:
        """Measured anew. A model's first passes are slower, and don't count."""
        for _ in range(1 if self._is_warm else 2):
            started_s = time.perf_counter()
            self._answer()
            self._at_s = time.perf_counter()
            self._per_s = self._num_requests / (self._at_s - started_s)
        self._is_warm = True
        return self._per_s

    def just_now(self) -> float:
        """What was measured last, if nothing has happened since, or else anew."""
        return self._per_s if time.perf_counter() - self._at_s <= JUST_NOW_S else self.now()
