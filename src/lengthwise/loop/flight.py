"""Every request of a run between its intake and its end, and what is counted of it meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lengthwise.estimates import LengthEstimates
from lengthwise.loop.counts import Counts
from lengthwise.types import (
    Cut,
    Event,
    PredictedTokens,
    Prepared,
    Progress,
    Request,
    RunningRequest,
    WaitingRequest,
)


@dataclass(slots=True)
class Tracked:
    """A request between its intake and its end."""

    request: Request
    prepared: Prepared
    estimates: LengthEstimates  # of the whole chunk it came with
    row: int
    predicted: PredictedTokens | None  # None where nothing is known
    expected_tokens: float
    arrival_s: float
    tokens: tuple[int, ...] = ()
    num_cuts: int = 0
    recomputed_tokens: int = 0

    @property
    def waiting(self) -> WaitingRequest:
        return WaitingRequest(
            self.request.id,
            self.prepared.prompt_tokens,
            self.prepared.max_tokens,
            len(self.tokens),
            self.arrival_s,
            self.num_cuts,
        )

    def estimate_now(self) -> LengthEstimates:
        return self.estimates[self.row].given(len(self.tokens)).capped(self.prepared.max_tokens)


@dataclass
class Flight:
    """Every request is in `tracked` from its intake to its end, and meanwhile in exactly one of `waiting` and
    `running`."""

    counts: Counts
    tracked: dict[str, Tracked] = field(default_factory=dict)
    waiting: dict[str, WaitingRequest] = field(default_factory=dict)
    running: dict[str, RunningRequest] = field(default_factory=dict)
    reserved_kv_tokens: int = 0  # of all that run

    def enter(self, tracked: Tracked) -> WaitingRequest:
        self.tracked[tracked.request.id] = tracked
        self.counts.expected_tokens += tracked.expected_tokens
        return self._wait(tracked)

    def forget_tokens(self, tracked: Tracked) -> None:
        """It will write again what is written of it."""
        num_tokens = len(tracked.tokens)
        tracked.recomputed_tokens += num_tokens
        self.counts.recomputed_tokens += num_tokens
        self.counts.written_tokens -= num_tokens
        tracked.tokens = ()

    def run(self, request_id: str, cap: int, now_s: float) -> None:
        """What waited runs."""
        waiting, num_tokens = self.waiting.pop(request_id), len(self.tracked[request_id].tokens)
        running = RunningRequest(request_id, waiting.prompt_tokens, cap, num_tokens, now_s)
        self.running[request_id] = running
        self.reserved_kv_tokens += running.reserved_kv_tokens

    def note_progress(self, events: Sequence[Event]) -> list[Event]:
        """Gives what is no progress. Most events are, where an engine reports it of every row at every step."""
        others: list[Event] = []
        running, num_written = self.running, 0
        for event in events:
            if isinstance(event, Progress):
                row = running[event.id]
                num_written += event.num_tokens - row.num_tokens
                row.num_tokens = event.num_tokens
            else:
                others.append(event)
        self.counts.written_tokens += num_written
        return others

    def expect(self, tracked: Tracked, num_tokens: float) -> None:
        self.counts.expected_tokens += num_tokens - tracked.expected_tokens
        tracked.expected_tokens = num_tokens

    def put_back(self, cut: Cut) -> Tracked:
        """What ran waits again, with its tokens."""
        self._stop_running(cut.id, len(cut.tokens))
        tracked = self.tracked[cut.id]
        tracked.tokens = cut.tokens
        tracked.num_cuts += 1
        self._wait(tracked)
        return tracked

    def end(self, request_id: str) -> Tracked:
        """It waits or runs no more."""
        if request_id in self.running:
            self._stop_running(request_id, 0)
        else:
            self.counts.written_tokens -= self.waiting.pop(request_id).num_tokens
        tracked = self.tracked.pop(request_id)
        self.counts.expected_tokens -= tracked.expected_tokens
        return tracked

    def written_tokens(self) -> dict[str, int]:
        """Of all that was started and has not ended."""
        cut = {name: request.num_tokens for name, request in self.waiting.items() if request.num_tokens}
        return cut | {name: row.num_tokens for name, row in self.running.items()}

    def _wait(self, tracked: Tracked) -> WaitingRequest:
        waiting = self.waiting[tracked.request.id] = tracked.waiting
        return waiting

    def _stop_running(self, request_id: str, num_tokens: int) -> None:
        running = self.running.pop(request_id)
        self.reserved_kv_tokens -= running.reserved_kv_tokens
        self.counts.written_tokens += num_tokens - running.num_tokens
