"""Ctrl-C: the first stops cleanly, the second at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from lengthwise.cli.console import say


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """While entered, the first SIGINT calls `stop`; a second one raises KeyboardInterrupt as ever.

    Signals can be handled in the main thread only; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop()
        say("Stopping; what is finished is kept. Press Ctrl-C again to stop at once.")

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
