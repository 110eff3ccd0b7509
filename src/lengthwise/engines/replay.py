"""An engine without a model: every answer has its recorded length, time is counted instead of spent.

For tests, for planning and for simulation. Tokens of an answer are 0, 1, 2, ...: whoever hands back tokens that
an answer never had is found out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from lengthwise.errors import EngineError
from lengthwise.types import (
    Capabilities,
    Cut,
    ErrorInfo,
    Event,
    Finished,
    Prepared,
    Progress,
    Request,
    unsupported_field,
)


@dataclass(frozen=True, slots=True)
class ReplayConfig:
    """What the replayed engine looks like. A decode step takes `step_fixed_s` + rows × `step_per_row_s`."""

    capabilities: Capabilities = field(default_factory=lambda: Capabilities(max_running=64))
    max_tokens: int = 512  # an answer's limit where the request gives none
    context_tokens: int = 131_072
    step_fixed_s: float = 0.002  # about a model of 4M parameters on two CPU cores
    step_per_row_s: float = 0.0001
    progress_interval_s: float = 0.5  # by its own clock; of every row with every end costs more than all else
    is_paced: bool = False  # sleep as long as the steps would take


@dataclass(slots=True)
class _Row:
    id: str
    natural_tokens: int
    max_tokens: int
    first_step: int  # the engine's step at which its answer would have begun, had it always run
    prompt_tokens: int


class ReplayEngine:
    """Answers whose natural length is `lengths[request.id]` tokens; an id without one fails (`no_recorded_length`).
    Progress of all rows is reported with an end, when the interval is over, unless its capabilities say that it
    reports none. Where they say that it makes room, the youngest row is put back whenever the memory is full, and
    progress is reported with every end.

    `now_s` is the engine's own clock: it moves by the cost of the steps. `num_steps` and `num_row_steps` count
    decode steps and the rows that were in them.
    """

    model = "replay"

    def __init__(self, lengths: Mapping[str, int], config: ReplayConfig = ReplayConfig()) -> None:
        self._lengths = lengths
        self._config = config
        self._rows: dict[str, _Row] = {}
        self._ends: list[tuple[int, int, _Row]] = []  # heap: the step at which a row ends, number of its start, row
        self._num_started = 0
        self._cancelled: list[str] = []
        self._last_progress_s = 0.0
        self.now_s = 0.0
        self.num_steps = 0
        self.num_row_steps = 0

    @property
    def capabilities(self) -> Capabilities:
        return self._config.capabilities

    @property
    def clock(self) -> Callable[[], float]:
        return lambda: self.now_s

    def prepare(self, requests: Sequence[Request]) -> list[Prepared | ErrorInfo]:
        return [self._prepare(request) for request in requests]

    def _prepare(self, request: Request) -> Prepared | ErrorInfo:
        if request.api_fields:
            return unsupported_field(request)
        if request.id not in self._lengths:
            return ErrorInfo("no_recorded_length", f"No length is recorded for request {request.id!r}.")
        prompt_tokens = 1 + len(request.text) // 4
        room = self._config.context_tokens - prompt_tokens
        if room < 1:
            message = f"The prompt has about {prompt_tokens} tokens; the context has {self._config.context_tokens}."
            return ErrorInfo("prompt_too_long", message)
        return Prepared(prompt_tokens, min(request.max_tokens or self._config.max_tokens, room))

    def start(self, request: Request, tokens_so_far: Sequence[int], cap: int, priority: float | None) -> None:
        if tuple(tokens_so_far) != tuple(range(len(tokens_so_far))):
            raise EngineError(f"Request {request.id!r} came back with tokens that its answer never had.")
        if request.id in self._rows:
            raise EngineError(f"Request {request.id!r} is already running.")
        if len(self._rows) >= self.capabilities.max_running:
            raise EngineError(f"All {self.capabilities.max_running} rows are taken.")
        prepared = self._prepare(request)
        assert isinstance(prepared, Prepared), "only prepared requests are started"
        natural = max(1, self._lengths[request.id])
        num_tokens = len(tokens_so_far)
        row = _Row(request.id, natural, prepared.max_tokens, self.num_steps - num_tokens, prepared.prompt_tokens)
        num_more = min(natural, prepared.max_tokens, cap) - num_tokens
        self._rows[request.id] = row
        self._num_started += 1
        heappush(self._ends, (self.num_steps + max(0, num_more), self._num_started, row))

    def cancel(self, request_id: str) -> None:
        if request_id in self._rows:
            self._cancelled.append(request_id)

    def poll(self, timeout_s: float) -> list[Event]:
        if self._cancelled:
            return self._report_cancelled()
        if not self._rows:
            return []
        if self._num_steps_that_fit < 1:
            return [self._make_room(), *self._progress()]
        ended = self._decode_to_next_end()
        for row in ended:
            del self._rows[row.id]
        return [self._ending(row) for row in ended] + self._progress()

    def _progress(self) -> list[Event]:
        is_due = self.now_s - self._last_progress_s >= self._config.progress_interval_s or self.capabilities.makes_room
        if not (is_due and self.capabilities.reports_progress):
            return []
        self._last_progress_s = self.now_s
        return [Progress(name, self.num_steps - row.first_step) for name, row in self._rows.items()]

    def close(self) -> None:
        self._rows.clear()
        self._ends.clear()
        self._cancelled.clear()

    def _report_cancelled(self) -> list[Event]:
        rows = [self._rows.pop(name) for name in dict.fromkeys(self._cancelled)]
        self._cancelled.clear()
        self._forget_ends()
        return [Cut(row.id, tuple(range(self.num_steps - row.first_step)), "cancelled") for row in rows]

    def _decode_to_next_end(self) -> list[_Row]:
        """Run until rows end; which, in order of their starts."""
        end = min(self._ends[0][0], self.num_steps + self._num_steps_that_fit)
        self._decode(int(end) - self.num_steps)
        ended: list[_Row] = []
        while self._ends and self._ends[0][0] == end:
            ended.append(heappop(self._ends)[2])
        return ended

    @property
    def _num_steps_that_fit(self) -> float:
        """Until the memory is full; one row alone may outgrow it."""
        capabilities = self.capabilities
        if not capabilities.makes_room or capabilities.kv_tokens == math.inf or len(self._rows) < 2:
            return math.inf
        held = sum(row.prompt_tokens + self.num_steps - row.first_step for row in self._rows.values())
        return (capabilities.kv_tokens - held) // len(self._rows)

    def _make_room(self) -> Cut:
        name = next(reversed(self._rows))
        row = self._rows.pop(name)
        self._forget_ends()
        return Cut(name, tuple(range(self.num_steps - row.first_step)), "memory")

    def _forget_ends(self) -> None:
        """Of rows that are gone."""
        self._ends = [end for end in self._ends if end[2].id in self._rows]
        heapify(self._ends)

    def _decode(self, num_steps: int) -> None:
        cost_s = num_steps * (self._config.step_fixed_s + len(self._rows) * self._config.step_per_row_s)
        self.now_s += cost_s
        self.num_steps += num_steps
        self.num_row_steps += num_steps * len(self._rows)
        if self._config.is_paced:
            time.sleep(cost_s)

    def _ending(self, row: _Row) -> Event:
        num = self.num_steps - row.first_step
        if num >= row.natural_tokens:
            return Finished(row.id, f"{row.id}: {num} tokens", "stop", num)
        if num >= row.max_tokens:
            return Finished(row.id, f"{row.id}: {num} tokens", "length", num)
        return Cut(row.id, tuple(range(num)))
