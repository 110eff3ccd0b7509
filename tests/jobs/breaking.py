"""An engine for tests of jobs that go on after the engine broke."""

from __future__ import annotations

from lengthwise.engines.replay import ReplayEngine
from lengthwise.errors import EngineError
from lengthwise.types import Event


class BreakingEngine(ReplayEngine):
    """Breaks down after so many polls, as a device that falls out does."""

    polls_left = 8

    def poll(self, timeout_s: float) -> list[Event]:
        self.polls_left -= 1
        if self.polls_left < 0:
            raise EngineError("The device is gone.")
        return super().poll(timeout_s)
