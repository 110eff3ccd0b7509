"""Ctrl-C and SIGTERM: the first ends a run cleanly, the second at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from lengthwise.cli.console import say

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """While entered, SIGINT and SIGTERM raise KeyboardInterrupt; inside `draining` only the second one does, and after
    `settle` none.

    Signals can be handled in the main thread only; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self._number: int = signal.SIGINT
        self._drain: Callable[[], None] | None = None
        self._before: dict[int, Any] = {}
        self._is_settled = False
        self.has_raised = False

    @property
    def exit_code(self) -> int:
        """What a shell gives for a process that a signal ended."""
        return 128 + self._number

    @contextmanager
    def draining(self, drain: Callable[[], None]) -> Iterator[None]:
        """While entered, the first signal calls `drain`."""
        self._drain = drain
        try:
            yield
        finally:
            self._drain = None

    def settle(self) -> None:
        """From here on it is too late to interrupt: all is done, and only remains to be said."""
        self._is_settled = True

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_settled:
            return
        self._number = number
        drain, self._drain = self._drain, None
        if drain is None:
            self.has_raised = True
            raise KeyboardInterrupt
        drain()
        say("Stopping: what runs is finished, nothing new is started. Press Ctrl-C again to stop at once.")
