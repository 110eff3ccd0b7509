"""How far a run is: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from lengthwise.cli.console import err, say
from lengthwise.loop import Counts

BAR_INTERVAL_S = 0.25  # smooth to the eye
LINE_INTERVAL_S = 10.0  # a log of an hour has 360 lines
RATE_WINDOW_S = 30.0  # long enough to smooth out batches, short enough to follow a change


@dataclass
class Meter:
    """Tokens a second over the last half minute, and the time left from what is still expected."""

    _samples: deque[tuple[float, float]] = field(default_factory=deque)

    def read(self, counts: Counts, now_s: float, num_unread: int = 0) -> tuple[float, float | None]:
        """Tokens a second, and seconds left (None as long as nothing can be said). `num_unread` requests are not yet
        in the window: nothing is expected of them but the average of the others."""
        self._samples.append((now_s, counts.completion_tokens + counts.written_tokens))
        while now_s - self._samples[0][0] > RATE_WINDOW_S:
            self._samples.popleft()
        (first_s, first_tokens), (last_s, last_tokens) = self._samples[0], self._samples[-1]
        rate = (last_tokens - first_tokens) / (last_s - first_s) if last_s > first_s else 0.0
        left_tokens = counts.predicted_remaining_tokens + num_unread * counts.completion_tokens / max(
            1, counts.num_finished
        )
        return max(0.0, rate), left_tokens / rate if rate > 0 else None


def reading(num_finished: int, num_total: int | None, tokens_per_s: float, left_s: float | None) -> str:
    """One line: requests, tokens/s, time left. Where it is not known how many there are, nor is the time."""
    if num_total is None:
        return f"{num_finished:,} requests, {tokens_per_s:,.0f} tokens/s"
    left = "" if left_s is None else f", about {duration(left_s)} left"
    return f"{num_finished:,} of {num_total:,} requests, {tokens_per_s:,.0f} tokens/s{left}"


def duration(seconds: float) -> str:
    """Seconds in words, as precise as a guess deserves."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if seconds < 3600:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


class Watch:
    """Shows, from a thread of its own while it is entered, what `counts` and `num_finished` say.

    A bar where stderr is a terminal, else a line every ten seconds; nothing if `is_quiet`.
    """

    def __init__(
        self, counts: Callable[[], Counts], num_finished: Callable[[], int], num_total: int | None, is_quiet: bool
    ) -> None:
        self._counts, self._num_finished, self._num_total = counts, num_finished, num_total
        self._meter = Meter()
        self._bar = _Bar(num_total) if err.is_interactive and not is_quiet else None
        self._closing = threading.Event()
        self._thread = (
            None if is_quiet else threading.Thread(target=self._work, name="lengthwise-progress", daemon=True)
        )

    def __enter__(self) -> Self:
        self._meter.read(self._counts(), time.monotonic())  # the rate counts from here
        if self._bar is not None:
            self._bar.start()
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        if self._bar is not None:
            self._show()
            self._bar.stop()

    def _work(self) -> None:
        while not self._closing.wait(LINE_INTERVAL_S if self._bar is None else BAR_INTERVAL_S):
            self._show()

    def _show(self) -> None:
        num_finished, counts = self._num_finished(), self._counts()
        num_left = 0 if self._num_total is None else self._num_total - num_finished
        num_unread = max(0, num_left - (counts.num_requests - counts.num_finished))
        line = reading(num_finished, self._num_total, *self._meter.read(counts, time.monotonic(), num_unread))
        if self._bar is None:
            say(line)
        else:
            self._bar.show(num_finished, line)


class _Bar:
    def __init__(self, num_total: int | None) -> None:
        self._progress = Progress(BarColumn(), TextColumn("{task.description}"), console=err, auto_refresh=False)
        self._task: TaskID = self._progress.add_task("starting", total=num_total)

    def start(self) -> None:
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()

    def show(self, num_finished: int, line: str) -> None:
        self._progress.update(self._task, completed=num_finished, description=line, refresh=True)
