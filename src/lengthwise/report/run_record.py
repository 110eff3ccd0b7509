"""A run as it went: how many ran when, and of a sample of its answers what was expected and what came."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lengthwise.estimates import GRID, LengthEstimates
from lengthwise.protocols import Scheduler
from lengthwise.report.traces import Timeline, WatchedScheduler
from lengthwise.types import Completion, PredictedTokens, WaitingRequest

MAX_ANSWERS = 5_000  # noted; of more, a random sample, so that memory does not grow with the job
NORMAL_Q90 = 1.2815515594600038  # standard deviations from the median to the 90th percentile


@dataclass(frozen=True, slots=True)
class NotedAnswer:
    """`completion_tokens` came, `predicted` was expected (None: nothing was known), `max_tokens` was the limit."""

    id: str
    prompt_tokens: int
    completion_tokens: int
    max_tokens: int
    predicted: PredictedTokens | None


class RunRecord:
    """Looks on at one run of a pipeline (`Pipeline.watcher`)."""

    def __init__(self, seed: int = 0) -> None:
        self.timeline = Timeline()
        self.answers: list[NotedAnswer] = []
        self.num_answered = 0
        self.num_failed = 0
        self._rng = np.random.default_rng(seed)
        self._limits: dict[str, int] = {}  # of what is in the run
        self._clock: Callable[[], float] = lambda: 0.0

    def watched(self, scheduler: Scheduler, clock: Callable[[], float]) -> Scheduler:
        self._clock = clock
        return _Limits(scheduler, self.timeline, self._limits)

    def noted(self, completions: Iterator[Completion]) -> Iterator[Completion]:
        for completion in completions:
            self._note(completion)
            yield completion
        if self.timeline.is_begun:
            self.timeline.note(self._clock(), 0)

    def _note(self, completion: Completion) -> None:
        limit = self._limits.pop(completion.id, 0)
        if completion.error is not None or completion.completion_tokens < 1:
            self.num_failed += completion.error is not None
            return
        self.num_answered += 1
        tokens = completion.completion_tokens
        answer = NotedAnswer(completion.id, completion.prompt_tokens, tokens, max(limit, tokens), completion.predicted)
        if len(self.answers) < MAX_ANSWERS:
            self.answers.append(answer)
            return
        place = int(self._rng.integers(0, self.num_answered))
        if place < MAX_ANSWERS:
            self.answers[place] = answer


class _Limits(WatchedScheduler):
    """Notes the limits of requests, too: answers don't tell them."""

    def __init__(self, scheduler: Scheduler, timeline: Timeline, limits: dict[str, int]) -> None:
        super().__init__(scheduler, timeline)
        self._limits = limits

    def add(self, requests: Sequence[WaitingRequest], estimates: LengthEstimates) -> None:
        self._limits.update((request.id, request.max_tokens) for request in requests)
        super().add(requests, estimates)


def as_predicted(answers: Sequence[NotedAnswer]) -> LengthEstimates:
    """What was known of each: the log-normal distribution with its median and 90th percentile, or nothing."""
    from scipy.special import ndtr

    known = np.array([answer.predicted is not None for answer in answers], np.bool_)
    told = [answer.predicted for answer in answers if answer.predicted is not None]
    medians = np.log([max(1.0, one.p50) for one in told])
    sigmas = np.array([max(0.05, np.log(max(one.p90, 1.0) / max(one.p50, 1.0)) / NORMAL_Q90) for one in told])
    z = (np.log(GRID.astype(np.float64))[None, :] - medians[:, None]) / sigmas[:, None]
    rows = LengthEstimates.concatenate(
        [LengthEstimates.from_survival(ndtr(-z)), LengthEstimates.unknown(int((~known).sum()))]
    )
    places = np.empty(len(answers), np.intp)
    places[known], places[~known] = np.arange(len(told)), len(told) + np.arange(int((~known).sum()))
    return rows[places]
