"""Who may send now: first come, first served, as many at once as the limit says."""

from __future__ import annotations

import asyncio
from collections import deque

from lengthwise.engines.openai.concurrency import Limit


class Turns:
    """A semaphore whose size may change. For one event loop."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.num_taken = 0

    async def take(self) -> None:
        """Wait until it is one's turn. Cancelled, it has taken nothing."""
        if self.num_taken < self._limit.value and not self._waiting:
            self.num_taken += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it came at the same moment
                self.give_back()
            raise

    def give_back(self) -> None:
        self.num_taken -= 1
        self.let_in()

    def let_in(self) -> None:
        """Let those in whose turn it is; to be called when the limit has grown, too."""
        while self._waiting and self.num_taken < self._limit.value:
            turn = self._waiting.popleft()
            if not turn.done():
                self.num_taken += 1
                turn.set_result(None)
