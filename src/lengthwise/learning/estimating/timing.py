"""How long a job will take: its lengths, through the scheduler that will run it, at the measured cost of a step.

Up to NUM_DRAWN answers are replayed with drawn lengths. What the job has more than those (or what the draw has less
than was expected) takes a row's share of a full step a token: all rows are busy in the middle of a job, and the replay
has its end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lengthwise.costs import StepCost
from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.errors import UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.learning.estimating.jobs import Drawn
from lengthwise.learning.estimating.totals import Interval
from lengthwise.pipeline import Pipeline
from lengthwise.types import Capabilities, Completion, ErrorInfo, Event, Prepared, Request


@dataclass(frozen=True, slots=True)
class StepTimes:
    """What runs: at most `max_running` rows, whose tokens must fit into `kv_tokens`, at this cost. Raises UsageError on
    a value that can't be."""

    cost: StepCost
    max_running: int
    kv_tokens: float = math.inf

    def __post_init__(self) -> None:
        if self.max_running < 1:
            raise UsageError(f"{self.max_running} rows run at once; it must be 1 or more.")

    def row_s(self, cached_tokens: float) -> float:
        """What a row with so many tokens in the cache adds to a step."""
        return self.cost.step_row_s + cached_tokens * self.cost.step_context_s

    def token_s(self, cached_tokens: float) -> float:
        """Of one token while all rows are busy."""
        return self.cost.step_fixed_s / self.max_running + self.row_s(cached_tokens)


@dataclass(frozen=True, slots=True)
class Seconds:
    """`expected`, and `interval` around it as wide as that of the tokens makes it."""

    expected: float
    interval: Interval


def seconds_by_steps(
    drawn: Drawn, prompt_tokens: float, tokens: float, interval: Interval, steps: StepTimes, schedule: str = "default"
) -> Seconds:
    """Of a job with so many tokens, of whose answers some were drawn."""
    cached_tokens = _cached_tokens(drawn)
    engine = _replayed(drawn, steps, cached_tokens, schedule)
    num_reads = engine.num_reads * drawn.num_seen / max(1, len(drawn))
    read_s = prompt_tokens * steps.cost.read_token_s + num_reads * steps.cost.read_fixed_s
    replayed_tokens = float(drawn.lengths[: len(drawn)].sum())
    at = [
        max(0.0, read_s + engine.now_s + (sum_ - replayed_tokens) * steps.token_s(cached_tokens))
        for sum_ in (tokens, interval.low, interval.high)
    ]
    error = steps.cost.relative_error
    return Seconds(at[0], Interval(at[1] * max(0.0, 1 - error), at[2] * (1 + error)))


def seconds_by_rate(tokens: float, interval: Interval, tokens_per_s: float) -> Seconds:
    """Where so many tokens are written in a second, all answers together."""
    return Seconds(tokens / tokens_per_s, Interval(interval.low / tokens_per_s, interval.high / tokens_per_s))


def _cached_tokens(drawn: Drawn) -> float:
    """Tokens that a row has in the cache in a step, on average over all steps of the drawn answers."""
    lengths = drawn.lengths[: len(drawn)].astype(np.float64)
    prompts = np.array([one.prompt_tokens for one in drawn.prepared], np.float64)
    return float(lengths @ (prompts + (lengths - 1) / 2) / lengths.sum()) if len(drawn) else 0.0


def _replayed(drawn: Drawn, steps: StepTimes, cached_tokens: float, schedule: str) -> _DrawnEngine:
    """The engine that has run them. Every row costs what it costs on average, so that the sum is right."""
    lengths = {str(row): int(length) for row, length in enumerate(drawn.lengths[: len(drawn)])}
    capabilities = Capabilities(max_running=steps.max_running, kv_tokens=steps.kv_tokens, makes_room=True)
    config = ReplayConfig(capabilities, step_fixed_s=steps.cost.step_fixed_s, step_per_row_s=steps.row_s(cached_tokens))
    engine = _DrawnEngine(lengths, drawn.prepared, config, steps.cost)
    requests = [Request(str(row), "", max_tokens=one.max_tokens) for row, one in enumerate(drawn.prepared)]
    with Pipeline(
        engine=engine, predictor=_Foretold(drawn.estimates), scheduler=schedule, clock=engine.clock
    ) as pipeline:
        for _ in pipeline.stream(requests):
            pass
    return engine


class _DrawnEngine(ReplayEngine):
    """Knows how many tokens prompts have that are not there, and counts how often some are read."""

    def __init__(
        self, lengths: dict[str, int], prepared: Sequence[Prepared], config: ReplayConfig, cost: StepCost
    ) -> None:
        super().__init__(lengths, config)
        self.step_cost: StepCost | None = cost
        self.num_reads = 0
        self._prepared = prepared
        self._is_entering = False

    def start(self, request: Request, tokens_so_far: Sequence[int], cap: int, priority: float | None) -> None:
        super().start(request, tokens_so_far, cap, priority)
        self._is_entering = True

    def poll(self, timeout_s: float) -> list[Event]:
        self.num_reads += self._is_entering
        self._is_entering = False
        return super().poll(timeout_s)

    def prepare(self, requests: Sequence[Request]) -> list[Prepared | ErrorInfo]:
        return [self._prepared[int(request.id)] for request in requests]


class _Foretold:
    """Says of each row what was said of it before."""

    model: str | None = None

    def __init__(self, estimates: LengthEstimates) -> None:
        self._estimates = estimates

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        return self._estimates[[int(request.id) for request in requests]]

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        """Learns nothing."""
