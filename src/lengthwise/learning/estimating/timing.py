"""How long a job will take: its lengths, through the scheduler that will run it, at the measured cost of a step.

Up to NUM_DRAWN answers are replayed with drawn lengths. What the job has more than those (or what the draw has less
than was expected) takes a row's share of a full step a token: all rows are busy in the middle of a job, and the replay
has its end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.errors import UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.learning.estimating.jobs import Drawn
from lengthwise.learning.estimating.totals import Interval
from lengthwise.pipeline import Pipeline
from lengthwise.types import Capabilities, Completion, ErrorInfo, Prepared, Request


@dataclass(frozen=True, slots=True)
class StepTimes:
    """What runs: a step takes `fixed_s` and `row_s` for each row, of at most `max_running`, whose tokens must fit into
    `kv_tokens`. `relative_error`: how far steps were seen to lie from that. Raises UsageError on a value that can't
    be."""

    fixed_s: float
    row_s: float
    max_running: int
    kv_tokens: float = math.inf
    relative_error: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.fixed_s < math.inf and 0 <= self.row_s < math.inf and self.fixed_s + self.row_s > 0):
            raise UsageError(
                f"The cost of a step is {self.fixed_s} s and {self.row_s} s a row; both must be 0 or more, one above."
            )
        if self.max_running < 1:
            raise UsageError(f"{self.max_running} rows run at once; it must be 1 or more.")

    @property
    def token_s(self) -> float:
        """Of one token while all rows are busy."""
        return self.fixed_s / self.max_running + self.row_s


@dataclass(frozen=True, slots=True)
class Seconds:
    """`expected`, and `interval` around it as wide as that of the tokens makes it."""

    expected: float
    interval: Interval


def seconds_by_steps(
    drawn: Drawn, prompt_tokens: float, tokens: float, interval: Interval, steps: StepTimes, schedule: str = "default"
) -> Seconds:
    """Of a job with so many tokens, of whose answers some were drawn. Reading a prompt's token is taken to cost what
    one more row costs in a step."""
    replayed_s = _replayed_s(drawn, steps, schedule) + prompt_tokens * steps.row_s
    replayed_tokens = float(drawn.lengths[: len(drawn)].sum())
    at = [
        max(0.0, replayed_s + (sum_ - replayed_tokens) * steps.token_s)
        for sum_ in (tokens, interval.low, interval.high)
    ]
    error = steps.relative_error
    return Seconds(at[0], Interval(at[1] * max(0.0, 1 - error), at[2] * (1 + error)))


def seconds_by_rate(tokens: float, interval: Interval, tokens_per_s: float) -> Seconds:
    """Where so many tokens are written in a second, all answers together."""
    return Seconds(tokens / tokens_per_s, Interval(interval.low / tokens_per_s, interval.high / tokens_per_s))


def _replayed_s(drawn: Drawn, steps: StepTimes, schedule: str) -> float:
    lengths = {str(row): int(length) for row, length in enumerate(drawn.lengths[: len(drawn)])}
    capabilities = Capabilities(max_running=steps.max_running, kv_tokens=steps.kv_tokens)
    config = ReplayConfig(capabilities, step_fixed_s=steps.fixed_s, step_per_row_s=steps.row_s)
    engine = _DrawnEngine(lengths, drawn.prepared, config)
    requests = [Request(str(row), "", max_tokens=one.max_tokens) for row, one in enumerate(drawn.prepared)]
    with Pipeline(
        engine=engine, predictor=_Foretold(drawn.estimates), scheduler=schedule, clock=engine.clock
    ) as pipeline:
        for _ in pipeline.stream(requests):
            pass
        return engine.now_s


class _DrawnEngine(ReplayEngine):
    """Knows how many tokens prompts have that are not there."""

    def __init__(self, lengths: dict[str, int], prepared: Sequence[Prepared], config: ReplayConfig) -> None:
        super().__init__(lengths, config)
        self._prepared = prepared

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
