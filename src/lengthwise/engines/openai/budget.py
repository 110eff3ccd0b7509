"""Who may try again now: first come, first served, one for each try that the budget holds."""

from __future__ import annotations

import asyncio
from collections import deque

from lengthwise.engines.openai.retry import RetryPolicy


class RetryBudget:
    """Tries again within a fifth of the requests and ten, and beyond that one a second. A try again that brings an
    answer costs nothing: what it took is put back, and the next in line goes.

    So a server that fails now and then costs no time, nor does a breakdown under many running requests that is over,
    and a server that fails always is not flooded. (Finagle's budget, which refuses instead of waiting.) For one event
    loop.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._left = policy.budget_floor
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add_request(self) -> None:
        self._add(self._policy.budget_share)

    def put_back(self) -> None:
        """A try again has brought its answer."""
        self._add(1.0)

    async def take(self) -> None:
        """Wait until one may try again. Cancelled, it has taken nothing."""
        if self._left >= 1 and not self._waiting:
            self._left -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._fill_later()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it came at the same moment
                self.put_back()
            raise

    def _add(self, num: float) -> None:
        self._left += num
        while self._waiting and self._left >= 1:
            turn = self._waiting.popleft()
            if not turn.done():
                self._left -= 1
                turn.set_result(None)

    def _fill_later(self) -> None:
        if self._waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(1 / self._policy.budget_per_s, self._fill)

    def _fill(self) -> None:
        self._timer = None
        self._add(1.0)
        self._fill_later()
