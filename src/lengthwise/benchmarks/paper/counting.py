"""What a schedule of batches cost, by the paper's definitions (`docs/metrics.md`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lengthwise.errors import EngineError
from lengthwise.estimates import LengthEstimates
from lengthwise.protocols import Scheduler
from lengthwise.types import Decision, Start, View, WaitingRequest


@dataclass(frozen=True, slots=True)
class StartedRow:
    """A row of a batch: `written` tokens are kept from before, the batch takes it to `cap` tokens at most."""

    id: str
    written: int
    cap: int


@dataclass(frozen=True)
class Counts:
    """Of a run in which each of n requests was answered. A position is a row of a batch in one of its steps: whoever
    has ended counts until the batch does, as padding."""

    num_requests: int
    num_tokens: int  # of the answers
    num_positions: int
    num_lost_positions: int  # of rows that were cut, and written again from nothing
    num_rerun: int

    @property
    def average_length(self) -> float:
        """Steps that a request's batches ran, all its attempts together."""
        return self.num_positions / self.num_requests

    @property
    def average_length_of_last_attempts(self) -> float:
        """The same as the paper's code counts it: what a cut attempt took is left out."""
        return (self.num_positions - self.num_lost_positions) / self.num_requests

    @property
    def effective_token_ratio(self) -> float:
        return self.num_tokens / self.num_positions

    @property
    def rerun_ratio(self) -> float:
        return self.num_rerun / self.num_requests

    def figures(self) -> dict[str, float]:
        names = ("average_length", "average_length_of_last_attempts", "effective_token_ratio", "rerun_ratio")
        return {name: getattr(self, name) for name in names}


def counted(batches: Sequence[Sequence[StartedRow]], lengths: Mapping[str, int]) -> Counts:
    """`lengths` are the answers' tokens by id, within their limits: each must have been delivered once. Raises
    EngineError where that is not so."""
    positions = lost = 0
    cut: set[str] = set()
    delivered: list[str] = []
    for batch in batches:
        steps = steps_of(batch, lengths)
        positions += steps * len(batch)
        for row in batch:
            if row.cap < lengths[row.id]:
                cut.add(row.id)
                lost += steps
            else:
                delivered.append(row.id)
    if sorted(delivered) != sorted(lengths):
        raise EngineError(f"{len(delivered)} answers were delivered to {len(lengths)} requests; each needs one.")
    return Counts(len(lengths), sum(lengths.values()), positions, lost, len(cut))


def steps_of(batch: Sequence[StartedRow], lengths: Mapping[str, int]) -> int:
    """Until the last row has ended, or is cut."""
    return max(min(row.cap, lengths[row.id]) - row.written for row in batch)


class WatchedScheduler:
    """A scheduler whose starts are noted: `batches`, those of one decision together. `max_rows`: no more at once than
    these, however many the engine has. Without `in_batches` each row counts alone: it leaves when it has ended, and
    another takes its place."""

    def __init__(self, inner: Scheduler, max_rows: int | None = None, *, in_batches: bool = True) -> None:
        self.batches: list[list[StartedRow]] = []
        self._inner, self._max_rows, self._in_batches = inner, max_rows, in_batches
        self._waiting: dict[str, WaitingRequest] = {}

    def add(self, requests: Sequence[WaitingRequest], estimates: LengthEstimates) -> None:
        self._waiting.update((request.id, request) for request in requests)
        self._inner.add(requests, estimates)

    def remove(self, request_ids: Iterable[str]) -> None:
        self._inner.remove(request_ids)

    def decide(self, view: View) -> list[Decision]:
        if self._max_rows is not None:
            free_rows = min(view.free_rows, self._max_rows - len(view.running))
            if free_rows < 1:
                return []
            view = replace(view, free_rows=free_rows)
        decisions = self._inner.decide(view)
        rows = [self._started(decision) for decision in decisions if isinstance(decision, Start)]
        if rows:
            self.batches += [rows] if self._in_batches else [[row] for row in rows]
        return decisions

    def _started(self, start: Start) -> StartedRow:
        request = self._waiting.pop(start.id)
        written = 0 if start.restart else request.num_tokens
        return StartedRow(start.id, written, min(start.cap, request.max_tokens))
