"""Requests, chunk by chunk → what is known of the whole job. Memory does not grow with its size."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lengthwise.errors import UsageError
from lengthwise.estimates import GRID, LengthEstimates
from lengthwise.learning.estimating.totals import NUM_POINTS, Doubles, Totals
from lengthwise.protocols import LengthPredictor
from lengthwise.types import ErrorInfo, Prepared, Request

NUM_LARGEST = 10
NUM_DRAWN = 4096  # answers of which one length is drawn, for the scheduler to be tried on; as many as it sorts at once


@dataclass(frozen=True, slots=True)
class Largest:
    """One of the rows whose answers may become longest, by its 99th percentile. In tokens, within its limit."""

    id: str
    p50: float
    p99: float
    max_tokens: int
    prompt_tokens: int


class Drawn:
    """Up to NUM_DRAWN answers, each as likely as any other to be among them, with one possible length of each."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.num_seen = 0
        self.lengths: NDArray[np.int64] = np.zeros(NUM_DRAWN, np.int64)
        self.prepared: list[Prepared] = []
        self._survival = np.zeros((NUM_DRAWN, len(GRID)), np.float32)
        self._limits = np.zeros(NUM_DRAWN, np.float32)

    def __len__(self) -> int:
        return len(self.prepared)

    @property
    def estimates(self) -> LengthEstimates:
        """What is known of each before it is written."""
        num = len(self)
        return LengthEstimates(self._survival[:num], np.zeros(num, np.float32), self._limits[:num])

    def add(self, estimates: LengthEstimates, points: Doubles, prepared: Sequence[Prepared]) -> None:
        """`points`: each one's distribution, as Totals gives it back."""
        columns = self._rng.integers(0, NUM_POINTS, len(prepared))
        order = self.num_seen + np.arange(len(prepared))
        places = np.where(order < NUM_DRAWN, order, self._rng.integers(0, order + 1))
        self.num_seen += len(prepared)
        for row in np.nonzero(places < NUM_DRAWN)[0].tolist():
            self._put(int(places[row]), row, estimates, prepared[row])
            self.lengths[places[row]] = max(1, round(float(points[row, columns[row]])))

    def _put(self, place: int, row: int, estimates: LengthEstimates, prepared: Prepared) -> None:
        if place == len(self.prepared):
            self.prepared.append(prepared)
        self.prepared[place] = prepared
        self._survival[place], self._limits[place] = estimates.survival[row], estimates.limit[row]


class JobOutlook:
    """What is known of a job's answers before it runs. Prompts are added in chunks."""

    def __init__(self, predictor: LengthPredictor, seed: int = 0) -> None:
        self.totals = Totals()  # of answers of which something is known
        self.drawn = Drawn(seed)
        self.num_prompts = 0  # that can be answered
        self.num_refused = 0
        self.prompt_tokens = 0
        self.num_unknown = 0  # answers of which nothing is known
        self.max_unknown_tokens = 0
        self._predictor = predictor
        self._largest: list[tuple[float, int, Largest]] = []

    def add(self, requests: Sequence[Request], prepared: Sequence[Prepared | ErrorInfo]) -> None:
        """Requests, and what the engine says of them. Those that it refuses cost nothing, and are counted."""
        accepted = [
            (request, one) for request, one in zip(requests, prepared, strict=True) if isinstance(one, Prepared)
        ]
        self.num_refused += len(requests) - len(accepted)
        if accepted:
            self._add([request for request, _ in accepted], [one for _, one in accepted])

    @property
    def num_answers(self) -> int:
        return self.totals.num_answers + self.num_unknown

    @property
    def largest(self) -> list[Largest]:
        """The first is the largest."""
        return [one for _, _, one in sorted(self._largest, reverse=True)]

    def _add(self, requests: list[Request], prepared: list[Prepared]) -> None:
        estimates = self._predictor.predict(requests)
        limits = np.array([one.max_tokens for one in prepared], np.float64)
        num_answers = np.array([_num_choices(request) for request in requests], np.int64)
        is_known = np.isfinite(estimates.median) | np.isfinite(estimates.limit)
        self.prompt_tokens += sum(one.prompt_tokens for one in prepared)
        self.num_unknown += int(num_answers[~is_known].sum())
        self.max_unknown_tokens += int(num_answers[~is_known] @ limits[~is_known])
        known = np.nonzero(is_known)[0]
        if len(known):
            points = self.totals.add(estimates[known], limits[known], num_answers[known])
            self.drawn.add(estimates[known], points, [prepared[row] for row in known])
        self._note_largest(requests, prepared, estimates.capped(limits))
        self.num_prompts += len(requests)

    def _note_largest(self, requests: list[Request], prepared: list[Prepared], within: LengthEstimates) -> None:
        p50, p99 = within.median, within.quantile(0.99)
        for row in np.argsort(-p99, kind="stable")[:NUM_LARGEST].tolist():
            one = prepared[row]
            found = Largest(requests[row].id, float(p50[row]), float(p99[row]), one.max_tokens, one.prompt_tokens)
            heapq.heappush(self._largest, (found.p99, -self.num_prompts - row, found))
            if len(self._largest) > NUM_LARGEST:
                heapq.heappop(self._largest)


def _num_choices(request: Request) -> int:
    """Answers that are asked for at once."""
    num = request.api_fields.get("n", 1)
    if not isinstance(num, int) or num < 1:
        raise UsageError(f"Request {request.id!r} asks for n = {num!r} answers; it must be a whole number, 1 or more.")
    return num
