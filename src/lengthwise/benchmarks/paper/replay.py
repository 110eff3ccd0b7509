"""Static batches of recorded lengths on a counted clock: the scheduler's own decisions, the cost model's seconds.

As in the paper's engine a row that has ended stays in its batch, and costs what the others cost, until the batch ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lengthwise.benchmarks.paper.counting import Counts, StartedRow, counted, steps_of
from lengthwise.benchmarks.paper.ways import LARGEST_BATCH, Way
from lengthwise.costs import StepCost
from lengthwise.errors import EngineError
from lengthwise.estimates import LengthEstimates
from lengthwise.simulation.arrivals import at_once
from lengthwise.simulation.cost import steps_s
from lengthwise.simulation.machine import EngineModel
from lengthwise.simulation.policies import BASE, policy
from lengthwise.simulation.simulator import simulate
from lengthwise.simulation.workload import Ints, Workload
from lengthwise.types import Preempt, Start, View, WaitingRequest


@dataclass(frozen=True, eq=False)
class Recorded:
    """n requests, all there from the beginning: tokens of their prompts and of their answers, and the one limit, which
    the answers keep. Raises EngineError on an answer beyond it."""

    prompt_tokens: Ints
    answer_tokens: Ints
    max_tokens: int

    def __post_init__(self) -> None:
        if int(self.answer_tokens.max()) > self.max_tokens:
            raise EngineError(f"An answer has {self.answer_tokens.max()} tokens, the limit is {self.max_tokens}.")

    def __len__(self) -> int:
        return len(self.answer_tokens)

    def taken(self, rows: Ints) -> Recorded:
        """Some of them, one as often as it is named."""
        return Recorded(self.prompt_tokens[rows], self.answer_tokens[rows], self.max_tokens)


def replayed(way: Way, recorded: Recorded, estimates: LengthEstimates, cost: StepCost) -> tuple[float, Counts]:
    """Seconds to the last answer, and what was computed. `estimates`: natural lengths, one row a request."""
    if way.order == "refill":
        return _refilled(way, recorded, cost)
    return _InBatches(way, recorded, estimates, cost).run()


class _InBatches:
    def __init__(self, way: Way, recorded: Recorded, estimates: LengthEstimates, cost: StepCost) -> None:
        self._recorded, self._natural, self._cost = recorded, estimates, cost
        self._lengths = {str(row): tokens for row, tokens in enumerate(recorded.answer_tokens.tolist())}
        self._prompts = recorded.prompt_tokens.tolist()
        self._scheduler = way.scheduler()
        self._now_s = 0.0
        self._waiting: dict[str, WaitingRequest] = {}

    def run(self) -> tuple[float, Counts]:
        limit = self._recorded.max_tokens
        come = [WaitingRequest(str(row), tokens, limit) for row, tokens in enumerate(self._prompts)]
        self._waiting = {request.id: request for request in come}
        self._scheduler.add(come, self._natural.capped(limit))
        while self._waiting:
            self._run_batch()
        return self._now_s, counted(self._scheduler.batches, self._lengths)

    def _run_batch(self) -> None:
        decided = self._scheduler.decide(View(self._now_s, self._waiting, {}, LARGEST_BATCH))
        if not decided or any(isinstance(one, Preempt) for one in decided):
            raise EngineError("A scheduler of static batches must start rows when the engine is empty, and only that.")
        batch = self._scheduler.batches[-1]
        steps = steps_of(batch, self._lengths)
        self._now_s += self._batch_s(batch, steps)
        num_cuts = {one.id: self._waiting.pop(one.id).num_cuts + 1 for one in decided if isinstance(one, Start)}
        self._put_back([row for row in batch if row.cap < self._lengths[row.id]], num_cuts)

    def _batch_s(self, batch: Sequence[StartedRow], steps: int) -> float:
        """Reading, padded to the longest row, and the steps; each finds one token more a row in the cache."""
        cost, rows = self._cost, len(batch)
        tokens = rows * max(self._prompts[int(row.id)] + row.written for row in batch)
        growth_s = rows * cost.step_context_s
        return cost.read_s(tokens) + steps_s(steps, cost.step_s(rows, tokens), growth_s)

    def _put_back(self, rows: Sequence[StartedRow], num_cuts: dict[str, int]) -> None:
        if not rows:
            return
        limit = self._recorded.max_tokens
        back = [
            WaitingRequest(row.id, self._prompts[int(row.id)], limit, row.cap, 0.0, num_cuts[row.id]) for row in rows
        ]
        self._waiting.update((request.id, request) for request in back)
        written = np.array([request.num_tokens for request in back])
        natural = self._natural[np.array([int(request.id) for request in back])]
        self._scheduler.add(back, natural.given(written).capped(limit))


def _refilled(way: Way, recorded: Recorded, cost: StepCost) -> tuple[float, Counts]:
    """A row that has ended leaves, and the next request to come takes its place: nothing is padded."""
    columns = (recorded.prompt_tokens, recorded.answer_tokens, recorded.max_tokens)
    workload = Workload.of(at_once(len(recorded)), *columns)
    engine = EngineModel(slots=way.batch_size, cost=cost)
    outcome = simulate(workload, LengthEstimates.unknown(len(recorded)), policy(BASE).make(engine), engine)
    num_tokens = int(recorded.answer_tokens.sum())
    return outcome.makespan_s, Counts(len(recorded), num_tokens, outcome.num_row_steps, 0, 0)
