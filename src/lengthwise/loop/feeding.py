"""What is read of a feed, and no id twice."""

from __future__ import annotations

from collections.abc import Sequence

from lengthwise.errors import UsageError, shown
from lengthwise.feeds import Feed
from lengthwise.types import Completion, Request

Item = Request | Completion


class Feeding:
    """Reads a feed. With a window ids must differ among those in flight only, else among all that were read: a doubled
    one ends the feed with a UsageError. What ends a feed is raised at once where all is read before anything begins;
    with a window it is kept as `error`, until all before it is answered."""

    def __init__(self, feed: Feed[Item], has_window: bool) -> None:
        self._feed = feed
        self._has_window = has_window
        self.ids: set[str] = set()  # in flight; without a window all that were read
        self.is_exhausted = False
        self.error: Exception | None = None

    def take(self, num: int, may_wait: bool) -> Sequence[Item]:
        """What comes next, `num` at most; nothing when the feed has ended, or has nothing at hand."""
        try:
            chunk = self._feed.take(num, may_wait)
        except Exception as error:
            self._end(error)
            return ()
        if chunk is None:
            self._end()
            return ()
        return self._up_to_a_doubled_id(chunk)

    def forget(self, request_id: str) -> None:
        """It has ended."""
        if self._has_window:
            self.ids.discard(request_id)

    def _up_to_a_doubled_id(self, chunk: Sequence[Item]) -> Sequence[Item]:
        for place, item in enumerate(chunk):
            if item.id in self.ids:
                told = "ids must differ (texts and mappings without one are numbered from 0)"
                self._end(UsageError(f"Two requests have the id {shown(item.id)}; {told}."))
                return chunk[:place]
            self.ids.add(item.id)
        return chunk

    def _end(self, error: Exception | None = None) -> None:
        if error is not None and not self._has_window:
            raise error
        self.is_exhausted, self.error = True, error
