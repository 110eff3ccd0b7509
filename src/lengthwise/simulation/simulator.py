"""The main loop in simulated time: hand over what has come → decide → start → run to the next event → put back."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from lengthwise.errors import EngineError, UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.protocols import Scheduler
from lengthwise.simulation.machine import EngineModel, Machine, MachineRow
from lengthwise.simulation.remembered import RememberedEstimates
from lengthwise.simulation.workload import Doubles, Workload
from lengthwise.types import Preempt, Start, View, WaitingRequest


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of n requests: when each was first started and when its answer was complete (n, seconds), and what
    the engine did for it."""

    arrival_s: Doubles
    start_s: Doubles
    end_s: Doubles
    num_steps: int
    num_row_steps: int
    num_read_tokens: int
    num_cached_tokens: int
    num_put_back: int
    recomputed_tokens: int

    @property
    def latency_s(self) -> Doubles:
        """From arrival to the last token (n)."""
        return self.end_s - self.arrival_s

    @property
    def wait_s(self) -> Doubles:
        """From arrival to the first start (n)."""
        return self.start_s - self.arrival_s

    @property
    def makespan_s(self) -> float:
        """From the first arrival to the last token."""
        return float(self.end_s.max() - self.arrival_s[0])

    @property
    def prefix_hit_rate(self) -> float:
        """Of the tokens that rows needed when they entered, the share that a prefix cache had."""
        needed = self.num_cached_tokens + self.num_read_tokens
        return self.num_cached_tokens / needed if needed else 0.0

    def figures(self) -> dict[str, float]:
        latency_s, wait_s = self.latency_s, self.wait_s
        return {
            "mean_latency_s": float(latency_s.mean()),
            "p50_latency_s": float(np.quantile(latency_s, 0.5)),
            "p99_latency_s": float(np.quantile(latency_s, 0.99)),
            "mean_wait_s": float(wait_s.mean()),
            "max_wait_s": float(wait_s.max()),
            "makespan_s": self.makespan_s,
            "prefix_hit_rate": self.prefix_hit_rate,
        }


def simulate(workload: Workload, estimates: LengthEstimates, scheduler: Scheduler, engine: EngineModel) -> Outcome:
    """Run the requests through a fresh scheduler, exact to the token.

    `estimates` are natural lengths, one row a request. The scheduler sees what the main loop shows it; it is asked
    when a row has left, and when requests have come while a row is free. Requests that come while none is are handed
    over when one is, with the times at which they came. Raises UsageError where a request is larger than the cache, or
    where there is a prefix cache and it is not known what prompts begin with; EngineError where the scheduler starts
    nothing into an empty engine.
    """
    return _Run(workload, estimates, scheduler, engine).outcome()


class _Run:
    def __init__(
        self, workload: Workload, estimates: LengthEstimates, scheduler: Scheduler, engine: EngineModel
    ) -> None:
        _check(workload, estimates, engine)
        self._workload, self._scheduler, self._engine = workload, scheduler, engine
        self._natural = estimates
        self._estimates = RememberedEstimates.of(estimates.capped(workload.max_tokens))
        self._arrivals: list[float] = [*workload.arrival_s.tolist(), math.inf]
        self._prompts: list[int] = workload.prompt_tokens.tolist()
        self._limits: list[int] = workload.max_tokens.tolist()
        self._answers: list[int] = workload.answer_tokens.tolist()
        self._prefixes = workload.prefixes or ((),) * len(workload)
        self._num_arrived = self._num_ended = 0
        self._start_s = [math.nan] * len(workload)
        self._end_s = [math.nan] * len(workload)
        self._waiting: dict[str, WaitingRequest] = {}
        self._machine = Machine(engine)
        self._running = self._machine.running
        self._machine.now_s = self._arrivals[0]
        self._is_asked_at_once = engine.memory == "planned" or not engine.is_preempting
        self._reserved_tokens = 0
        self._num_cuts: dict[int, int] = {}
        self._num_put_back = self._recomputed_tokens = 0

    def outcome(self) -> Outcome:
        num, machine = len(self._workload), self._machine
        while self._num_ended < num:
            self._hand_over()
            num_put_back = self._num_put_back
            self._decide()
            if not self._running:
                if self._num_put_back == num_put_back:  # else the scheduler emptied the engine, and is asked again
                    self._skip_to_next_arrival()
                continue
            for row in machine.run(self._next_event_s()):
                self._take_back(row)
        ended = (np.array(self._start_s), np.array(self._end_s))
        counts = (machine.num_steps, machine.num_row_steps, machine.num_read_tokens, machine.num_cached_tokens)
        return Outcome(self._workload.arrival_s, *ended, *counts, self._num_put_back, self._recomputed_tokens)

    # -- arrivals ----------------------------------------------------------------------------------------------

    def _num_free(self) -> int:
        return self._engine.slots - len(self._running)

    def _next_event_s(self) -> float:
        """When somebody comes who could start; inf: never, or while no row is free."""
        return self._arrivals[self._num_arrived] if len(self._running) < self._engine.slots else math.inf

    def _hand_over(self) -> None:
        now_s = self._machine.now_s
        if self._next_event_s() > now_s:
            return
        first, arrivals = self._num_arrived, self._arrivals
        last = bisect_right(arrivals, now_s, first)
        prompts, limits, waiting = self._prompts, self._limits, self._waiting
        come = [WaitingRequest(str(i), prompts[i], limits[i], 0, arrivals[i]) for i in range(first, last)]
        for request in come:
            waiting[request.id] = request
        self._num_arrived = last
        self._machine.now_s += self._engine.intake_s
        self._scheduler.add(come, self._estimates[first:last])

    def _skip_to_next_arrival(self) -> None:
        if self._waiting or self._num_arrived == len(self._workload):
            raise EngineError(
                f"{type(self._scheduler).__name__} starts nothing though {len(self._waiting)} requests wait and the "
                "engine is empty; a scheduler must start at least one."
            )
        self._machine.now_s = max(self._machine.now_s, self._arrivals[self._num_arrived])

    # -- decisions ---------------------------------------------------------------------------------------------

    def _decide(self) -> None:
        """What is to start; where rows are put back for want of memory one by one, as long as the last one fits."""
        if self._is_asked_at_once:
            self._carry_out(self._num_free(), self._engine.kv_tokens - self._reserved_tokens)
            return
        while self._num_free() and self._machine.is_door_free and self._carry_out(1, math.inf):
            pass

    def _carry_out(self, free_rows: int, free_kv_tokens: float) -> int:
        """The scheduler's decisions; how many starts there were."""
        machine = self._machine
        view = View(machine.now_s, self._waiting, machine.running, free_rows, free_kv_tokens, self._engine.kv_tokens)
        num_starts = 0
        for decision in self._scheduler.decide(view):
            if isinstance(decision, Preempt):
                row = machine.running[decision.id]
                machine.put_back(row)
                self._take_back(row)
            else:
                self._start(decision)
                num_starts += 1
        return num_starts

    def _start(self, start: Start) -> None:
        request, machine, index = self._waiting.pop(start.id), self._machine, int(start.id)
        written = request.num_tokens
        if start.restart:
            self._recomputed_tokens += written
            written = 0
        cap = min(start.cap, request.max_tokens)
        end = min(cap, self._answers[index])
        prefix = self._prefixes[index]
        machine.start(MachineRow(machine, index, start.id, request.prompt_tokens, written, cap, end, prefix))
        self._reserved_tokens += request.prompt_tokens + cap
        if not request.num_cuts:
            self._start_s[index] = machine.now_s

    def _take_back(self, row: MachineRow) -> None:
        """Of a row that left the engine: it has ended, or waits again with its tokens."""
        self._reserved_tokens -= row.prompt_tokens + row.cap
        index, written = row.index, row.written_tokens
        if written >= self._answers[index]:
            self._end_s[index] = self._machine.now_s
            self._num_ended += 1
            return
        self._num_put_back += 1
        self._num_cuts[index] = self._num_cuts.get(index, 0) + 1
        limit = self._limits[index]
        request = WaitingRequest(
            row.id, row.prompt_tokens, limit, written, self._arrivals[index], self._num_cuts[index]
        )
        self._waiting[row.id] = request
        self._scheduler.add([request], self._natural[index].given(written).capped(limit))


def _check(workload: Workload, estimates: LengthEstimates, engine: EngineModel) -> None:
    if len(estimates) != len(workload):
        raise UsageError(f"There are {len(estimates)} estimates for {len(workload)} requests; each needs one.")
    if engine.prefix_cache_tokens and workload.prefixes is None:
        raise UsageError("A prefix cache is of no use where it is not known what prompts begin with (prefixes).")
    sizes = workload.prompt_tokens + workload.answer_tokens
    largest = int(sizes.argmax())
    if sizes[largest] > engine.kv_tokens:
        raise UsageError(
            f"Row {workload.rows[largest] + 1} needs {sizes[largest]:,} tokens, prompt and answer; a cache of "
            f"{engine.kv_tokens:,.0f} never holds it. Give more, or leave such rows out."
        )
