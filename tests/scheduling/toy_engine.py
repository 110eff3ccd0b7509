"""An engine without a model for schedulers alone: known lengths, one step at a time, every rule checked as it goes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from lengthwise.estimates import LengthEstimates
from lengthwise.protocols import Scheduler
from lengthwise.scheduling.refill import RefillScheduler
from lengthwise.types import RunningRequest, Start, View, WaitingRequest

Estimate = Callable[[Sequence[WaitingRequest]], LengthEstimates]


def needs(scheduler: Scheduler) -> dict[str, bool]:
    """What an engine does for it, as fields of ToyEngine."""
    if isinstance(scheduler, RefillScheduler):
        return {"is_static": False, "makes_room": scheduler.config.memory == "expected"}
    return {"is_static": True}


@dataclass
class ToyEngine:
    """Plays engine and caller for `scheduler`: adds, decides whenever something ended, decodes, puts cut rows back.

    `lengths` are the natural lengths by id, `estimate` gives curves that are not yet limited. With `rng`, rows are
    at times cut for another reason than their cap. `makes_room`: more may be started than memory holds if all reach
    their caps; when it is full, the youngest row is put back. Raises AssertionError when a rule is broken: what starts
    waits and fits, caps are within the limit, a static batch starts only into an empty engine, and an empty engine
    never idles.
    """

    scheduler: Scheduler
    lengths: dict[str, int]
    estimate: Estimate
    max_rows: int
    kv_tokens: float = math.inf
    rng: random.Random | None = None
    is_static: bool = True  # a batch may start only into an empty engine
    makes_room: bool = False

    waiting: dict[str, WaitingRequest] = field(default_factory=dict)
    running: dict[str, RunningRequest] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    num_cuts: dict[str, int] = field(default_factory=dict)
    finished: dict[str, int] = field(default_factory=dict)  # tokens by id, in order of ending
    batches: list[list[Start]] = field(default_factory=list)
    num_steps: int = 0
    num_row_steps: int = 0
    num_read_tokens: int = 0  # prompts, and answers that go on
    num_padded_row_steps: int = 0  # as the two above, where a batch keeps its shape to the end
    num_padded_read_tokens: int = 0
    recomputed_tokens: int = 0
    num_foreign_cuts: int = 0  # not by a cap
    num_made_room: int = 0

    def add(self, requests: Sequence[WaitingRequest]) -> None:
        limits = [request.max_tokens for request in requests]
        written = [request.num_tokens for request in requests]
        self.waiting |= {request.id: request for request in requests}
        self.limits |= {request.id: request.max_tokens for request in requests}
        self.scheduler.add(requests, self.estimate(requests).given(written).capped(limits))

    def remove(self, ids: Iterable[str]) -> None:
        """As a caller would: only what waits is forgotten, the scheduler is told of all."""
        ids = list(ids)
        self.scheduler.remove(ids)
        for name in ids:
            self.waiting.pop(name, None)

    def run(self) -> None:
        """Until nothing waits and nothing runs."""
        while self.waiting or self.running:
            self.step()

    def step(self) -> None:
        """One decision, then decode until something ends."""
        self.decide()
        self.decode()

    def decide(self) -> list[Start]:
        reserved = sum(row.reserved_kv_tokens for row in self.running.values())
        free_rows, free_kv_tokens = self.max_rows - len(self.running), self.kv_tokens - reserved
        starts = self.scheduler.decide(View(0.0, self.waiting, self.running, free_rows, free_kv_tokens, self.kv_tokens))
        assert all(isinstance(start, Start) for start in starts)
        assert not (self.is_static and starts and self.running), "a batch starts only into an empty engine"
        for start in starts:
            self._start(start)
        assert self.running or not self.waiting, "nothing runs and something waits"
        self._check_limits(starts)
        return starts

    def decode(self) -> None:
        """Until the next row ends; then it, and with `rng` at times another, leaves."""
        if not self.running:
            return
        num = min(self._end(row) - row.num_tokens for row in self.running.values())
        if self.makes_room and len(self.running) > 1:
            num = min(num, max(0, int(min(self.kv_tokens - self.held_tokens, 2**40)) // len(self.running)))
            if num == 0:
                self.num_made_room += 1
                return self._put_back([self.running.pop(list(self.running)[-1])])
        self.num_steps += num
        self.num_row_steps += num * len(self.running)
        self.num_padded_row_steps += num * len(self.batches[-1])
        for row in self.running.values():
            row.num_tokens += num
        ended = [row for row in self.running.values() if row.num_tokens == self._end(row)]
        self._take_out(ended)
        if self.rng and self.running and self.rng.random() < 0.1:
            self.num_foreign_cuts += 1
            self._put_back([self.running.pop(self.rng.choice(list(self.running)))])

    @property
    def held_tokens(self) -> int:
        return sum(row.prompt_tokens + row.num_tokens for row in self.running.values())

    # -- how ---------------------------------------------------------------------------------------------------

    def _start(self, start: Start) -> None:
        request = self.waiting.pop(start.id)
        if start.restart:
            assert request.num_tokens, f"{start.id} has nothing to throw away"
            self.recomputed_tokens += request.num_tokens
            request = replace(request, num_tokens=0)
        assert request.num_tokens < start.cap <= request.max_tokens, f"{start} for {request}"
        self.num_read_tokens += request.prompt_tokens + request.num_tokens
        self.running[start.id] = RunningRequest(start.id, request.prompt_tokens, start.cap, request.num_tokens, 0.0)

    def _check_limits(self, starts: list[Start]) -> None:
        if not starts:
            return
        self.batches.append(starts)
        held = [row.prompt_tokens + row.num_tokens for row in self.running.values()]
        self.num_padded_read_tokens += len(held) * max(held)
        reserved = self.held_tokens if self.makes_room else sum(r.reserved_kv_tokens for r in self.running.values())
        assert len(self.running) <= max(self.max_rows, 1), f"{len(self.running)} rows of {self.max_rows}"
        assert reserved <= self.kv_tokens or len(self.running) == 1, f"{reserved} tokens of {self.kv_tokens}"

    def _end(self, row: RunningRequest) -> int:
        return min(self.lengths[row.id], row.cap)

    def _take_out(self, ended: list[RunningRequest]) -> None:
        cut = []
        for row in ended:
            del self.running[row.id]
            if row.num_tokens in (self.lengths[row.id], self.limits[row.id]):
                assert row.id not in self.finished, f"{row.id} ended twice"
                self.finished[row.id] = row.num_tokens
            else:
                cut.append(row)
        self._put_back(cut)

    def _put_back(self, rows: list[RunningRequest]) -> None:
        if not rows:
            return
        for row in rows:
            self.num_cuts[row.id] = self.num_cuts.get(row.id, 0) + 1
        self.add(
            [
                WaitingRequest(
                    row.id, row.prompt_tokens, self.limits[row.id], row.num_tokens, 0.0, self.num_cuts[row.id]
                )
                for row in rows
            ]
        )
