"""An engine for collections: any id has a length, which its id alone determines, and requests can be looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from zlib import crc32

from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.types import Capabilities, Request

LIMIT = 50
LONGEST = 60


class AnyLengths(Mapping[str, int]):
    """1 to LONGEST tokens for every id but those that begin with one of `failing`."""

    def __init__(self, failing: Sequence[str] = ()) -> None:
        self._failing = tuple(failing)

    def __contains__(self, name: object) -> bool:
        return not str(name).startswith(self._failing) if self._failing else True

    def __getitem__(self, name: str) -> int:
        return 1 + crc32(name.encode()) % LONGEST

    def __iter__(self) -> Iterator[str]:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError


class WatchedEngine(ReplayEngine):
    """Keeps the requests that it was given, by id."""

    def __init__(self, failing: Sequence[str] = (), max_tokens: int = LIMIT) -> None:
        super().__init__(AnyLengths(failing), ReplayConfig(Capabilities(max_running=8), max_tokens=max_tokens))
        self.requests: dict[str, Request] = {}

    def start(self, request: Request, tokens_so_far: Sequence[int], cap: int, priority: float | None) -> None:
        self.requests[request.id] = request
        super().start(request, tokens_so_far, cap, priority)


def expected_length(name: str) -> int:
    return min(LIMIT, AnyLengths()[name])
