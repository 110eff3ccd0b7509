"""What is told of a run, and asked of it, while it goes on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counts:
    """Where a run stands; read by progress displays, from any thread. Times in seconds."""

    num_requests: int = 0
    num_finished: int = 0
    num_failed: int = 0
    completion_tokens: int = 0
    recomputed_tokens: int = 0
    written_tokens: int = 0  # of answers that are not finished
    expected_tokens: float = 0.0  # of answers that are not finished, as estimated when their prompts were read
    predict_s: float = 0.0

    @property
    def predicted_remaining_tokens(self) -> float:
        return max(0.0, self.expected_tokens - self.written_tokens)

    @contextmanager
    def predicting(self) -> Iterator[None]:
        """What is done within it counts as prediction."""
        started_s = time.perf_counter()
        try:
            yield
        finally:
            self.predict_s += time.perf_counter() - started_s


@dataclass(slots=True)
class Control:
    """What is asked of a run while it goes on; set from any thread or signal handler, seen at the run's next step.

    `is_stopped`: end, and cancel what runs. `is_draining`: start nothing new, and finish what was begun.
    `cancelled_ids`: requests that shall end now; those that are not in the run are passed over.
    """

    is_stopped: bool = False
    is_draining: bool = False
    cancelled_ids: deque[str] = field(default_factory=deque)
