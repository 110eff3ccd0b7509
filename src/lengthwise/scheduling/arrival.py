"""First come, first served, in static batches: the baseline."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from lengthwise.errors import UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.types import Decision, Start, View, WaitingRequest


class ArrivalScheduler:
    """Batches of at most `batch_size` in the order in which requests were added, each up to its own limit.

    A batch starts only into an empty engine and takes what the engine's free rows and memory hold, at least one
    request. Estimates are not looked at. A request that comes back (the engine cut it to make room, or as asked)
    goes ahead of all that never ran.
    """

    def __init__(self, batch_size: int) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}; a batch needs at least 1 row.")
        self.batch_size = batch_size
        self._fresh: deque[WaitingRequest] = deque()
        self._returned: deque[WaitingRequest] = deque()

    def add(self, requests: Sequence[WaitingRequest], estimates: LengthEstimates) -> None:
        for request in requests:
            (self._returned if request.num_cuts else self._fresh).append(request)

    def remove(self, request_ids: Iterable[str]) -> None:
        gone = set(request_ids)
        self._fresh = deque(request for request in self._fresh if request.id not in gone)
        self._returned = deque(request for request in self._returned if request.id not in gone)

    def decide(self, view: View) -> list[Decision]:
        starts: list[Decision] = []
        free_kv_tokens = view.free_kv_tokens
        while not view.running and len(starts) < min(self.batch_size, max(view.free_rows, 1)):
            queue = self._returned or self._fresh
            if not queue or (starts and _reserved_tokens(queue[0]) > free_kv_tokens):
                break
            request = queue.popleft()
            free_kv_tokens -= _reserved_tokens(request)
            starts.append(Start(request.id, request.max_tokens))
        return starts


def _reserved_tokens(request: WaitingRequest) -> int:
    return request.prompt_tokens + request.max_tokens
