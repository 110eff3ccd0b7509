"""The same answers again, simulated: in arrival order, refilled, as they were predicted, with true lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lengthwise.costs import StepCost
from lengthwise.estimates import LengthEstimates
from lengthwise.report.charts import Kind
from lengthwise.report.run_record import NotedAnswer, RunRecord, as_predicted
from lengthwise.report.traces import Trace, traced
from lengthwise.simulation.guesses import exact
from lengthwise.simulation.machine import EngineModel
from lengthwise.simulation.study import Figures, Ratio
from lengthwise.simulation.workload import Workload
from lengthwise.types import Capabilities

NUM_DRAWS = 5  # the noted answers in a random order, and as many drawn of them with repetition
BASE = "static batches, arrival order"
REFILLED = "refilled, arrival order"
OWN = "this run"
TRUE = "true lengths"
SCHEDULES = {"refill": "refill", "grouped": "static-grouped", "paper": "static-paper", "arrival": "static-arrival"}


@dataclass(frozen=True)
class RunEngine:
    """The engine that a run had. `cost` is None where no step was measured."""

    capabilities: Capabilities
    cost: StepCost | None
    schedule: str

    @property
    def policy(self) -> str:
        """What the run's schedule is called in simulations."""
        if self.schedule == "default":
            return "refill" if self.capabilities.can_refill else "static-grouped"
        return SCHEDULES[self.schedule]

    def model(self, cost: StepCost) -> EngineModel:
        slots = max(1, int(self.capabilities.max_running))
        return EngineModel(slots, self.capabilities.kv_tokens, cost=cost)


@dataclass(frozen=True)
class Again:
    """By the contenders' names: their colours, makespans (a value a draw), and the traces of the first draw.
    `engine` is as fast as makes the run come out as long as it was; `slowdown`: by the cost that was measured
    beforehand it would have been shorter by this factor (None: nothing was measured)."""

    kinds: Mapping[str, Kind]
    figures: Mapping[str, Figures]
    traces: Mapping[str, Trace]
    engine: EngineModel
    slowdown: float | None

    @cached_property
    def ratios(self) -> dict[str, Ratio]:
        """Makespans by that of BASE."""
        return {name: Ratio.of(one, self.figures[BASE], "makespan_s") for name, one in self.figures.items()}

    @property
    def knowing(self) -> Ratio:
        """What the estimates made of it, by what is best without any."""
        peer = REFILLED if REFILLED in self.figures else BASE
        return Ratio.of(self.figures[OWN], self.figures[peer], "makespan_s")


def run_again(record: RunRecord, engine: RunEngine) -> Again:
    """Draw by draw, all contenders on the same answers: the noted ones, of which there must be some."""
    answers = record.answers
    contenders: list[tuple[str, Kind, str]] = [(BASE, "base", "static-arrival")]
    if engine.capabilities.can_refill:
        contenders.append((REFILLED, "peer", "refill"))
    contenders += [(OWN, "ours", engine.policy), (TRUE, "oracle", engine.policy)]
    kinds = {name: kind for name, kind, _ in contenders}
    names = {name: policy for name, _, policy in contenders}
    cost, slowdown = _calibrated(record, engine)
    model = engine.model(cost)
    found: dict[str, list[float]] = {name: [] for name in kinds}
    first: dict[str, Trace] = {}
    for draw in range(NUM_DRAWS):
        drawn = _draw(answers, draw)
        workload = _workload(drawn)
        known = _known(drawn, workload)
        for name in kinds:
            trace = traced(names[name], workload, known[name], model)
            found[name].append(trace.outcome.makespan_s)
            first.setdefault(name, trace)
    figures = {name: Figures({"makespan_s": np.array(values)}) for name, values in found.items()}
    return Again(kinds, figures, first, model, None if engine.cost is None else slowdown)


def _known(drawn: Sequence[NotedAnswer], workload: Workload) -> dict[str, LengthEstimates]:
    nothing = LengthEstimates.unknown(len(drawn))
    return {
        BASE: nothing,
        REFILLED: nothing,
        OWN: as_predicted(drawn),
        TRUE: exact(workload.output_tokens),
    }


def _draw(answers: Sequence[NotedAnswer], draw: int) -> Sequence[NotedAnswer]:
    """Never in the order in which they were noted: short answers ended first."""
    rng, num = np.random.default_rng([draw, 3]), len(answers)
    picked = rng.integers(0, num, num) if draw else rng.permutation(num)
    return [answers[place] for place in picked.tolist()]


def _workload(answers: Sequence[NotedAnswer]) -> Workload:
    """All at once, as in a file."""
    columns = [
        np.array(column, np.int64)
        for column in zip(*((one.prompt_tokens, one.completion_tokens, one.max_tokens) for one in answers), strict=True)
    ]
    return Workload.of(0.0, *columns)


def _calibrated(record: RunRecord, engine: RunEngine) -> tuple[StepCost, float]:
    """The cost of a step with which the run comes out as long as it was (a sample of it, as long as its share), and by
    what factor that is more than what was measured beforehand: other programs, or what no step tells of. Where nothing
    was measured, a row adds to a step as much of it as in the simulator without a cost."""
    cost = engine.cost or StepCost()
    drawn = _draw(record.answers, 0)
    simulated = traced(engine.policy, _workload(drawn), as_predicted(drawn), engine.model(cost)).outcome
    share_s = record.timeline.span_s * len(drawn) / record.num_answered
    factor = max(1e-9, share_s) / simulated.makespan_s
    parts = {name: seconds * factor for name, seconds in cost.to_json().items() if name.endswith("_s")}
    return replace(cost, **parts), factor
