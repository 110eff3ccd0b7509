"""Where a run's requests come from: a source that is read as far as the run can use it, without making it wait.

A list or a file is always at hand; whoever writes to a pipe may take minutes for the next line. A feed tells both
apart: `take` waits only when it is allowed to, so rows that run never stand still for want of new ones.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Iterable, Sequence
from itertools import islice
from threading import Condition, Thread
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar, runtime_checkable

from lengthwise.errors import UsageError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

MAX_WAIT_S = 0.2  # how late a run that waits for its source learns that it was stopped


@runtime_checkable
class Feed(Protocol[T_co]):
    """A source of requests, read by one caller from its front to its end, once."""

    def take(self, num: int, may_wait: bool) -> Sequence[T_co] | None:
        """The next items, `num` at most; None when there will be no more. With `may_wait` it waits for the first of
        them, and gives an empty list after a moment, so that the caller can look whether it still wants any. Without,
        it gives what is at hand, perhaps nothing. What the source raises comes out here, after all that it gave."""
        ...


class IterableFeed(Generic[T]):
    """A feed of what is at hand as soon as it is asked for: a list, a file. A source that is slow blocks `take`."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items = iter(items)
        self._error: Exception | None = None

    def take(self, num: int, may_wait: bool) -> list[T] | None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        taken: list[T] = []
        try:
            for item in islice(self._items, num):
                taken.append(item)  # one by one: those before an error are kept
        except Exception as error:
            if not taken:
                raise
            self._error = error
        return taken or None


class BufferedFeed(Generic[T]):
    """What was read ahead of the run, at most `max_items`, handed from one thread to another. `close` may be called
    more than once: nothing more is read then, and nothing given out."""

    def __init__(self, max_items: int) -> None:
        if max_items < 1:
            raise UsageError(f"max_items is {max_items}; nothing could be read. Give 1 or more.")
        self._max_items = max_items
        self._items: deque[T] = deque()
        self._changed = Condition()  # guards all that follows
        self._is_ended = False
        self._is_closed = False
        self._error: BaseException | None = None

    def take(self, num: int, may_wait: bool) -> list[T] | None:
        with self._changed:
            if may_wait and not self._items and not self._is_ended:
                self._changed.wait(MAX_WAIT_S)
            taken = [self._items.popleft() for _ in range(min(num, len(self._items)))]
            self._changed.notify_all()
            if taken or not self._is_ended:
                return taken
            error, self._error = self._error, None
        if error is not None:
            raise error
        return None

    def close(self) -> None:
        with self._changed:
            self._is_closed = self._is_ended = True
            self._error = None
            self._items.clear()
            self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _offer(self, item: T) -> bool:
        """Take the item in; False where there is no room. A closed feed has room, and keeps nothing."""
        with self._changed:
            if self._is_closed:
                return True
            if len(self._items) >= self._max_items:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def _end(self, error: BaseException | None) -> None:
        with self._changed:
            if not self._is_closed:
                self._is_ended, self._error = True, error
            self._changed.notify_all()


class ThreadedFeed(BufferedFeed[T]):
    """A slow source (standard input, a pipe, a socket), read ahead by a thread while the run goes on.

    Close it when the run ends, however it ends: the thread ends with its next item. While the source gives none, the
    thread stays in it and does not keep the program from ending (but Python dies with an error when that thread stands
    in `sys.stdin`: read `open(0, "rb", closefd=False)` instead).
    """

    def __init__(self, items: Iterable[T], max_items: int = 4096) -> None:
        super().__init__(max_items)
        Thread(target=self._read, args=(items,), name="lengthwise-feed", daemon=True).start()

    def _read(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                if not self._put(item):
                    return
            self._end(None)
        except BaseException as error:
            self._end(error)

    def _put(self, item: T) -> bool:
        """Wait for room; False when the feed was closed."""
        with self._changed:
            while not self._offer(item):
                self._changed.wait()
            return not self._is_closed


class AsyncFeed(BufferedFeed[T]):
    """An asynchronous source. `read` runs in the event loop while another thread takes."""

    def __init__(self, max_items: int) -> None:
        super().__init__(max_items)
        self._has_room = asyncio.Event()
        self._event_loop = asyncio.get_running_loop()

    def take(self, num: int, may_wait: bool) -> list[T] | None:
        taken = super().take(num, may_wait)
        if taken:
            self._event_loop.call_soon_threadsafe(self._has_room.set)
        return taken

    async def read(self, items: AsyncIterable[T]) -> None:
        try:
            async for item in items:
                while not self._offer(item):
                    await self._has_room.wait()
                    self._has_room.clear()
            self._end(None)
        except BaseException as error:
            self._end(error)
            raise
