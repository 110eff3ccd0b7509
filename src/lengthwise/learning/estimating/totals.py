"""The tokens of many answers together.

Two things make their sum uncertain. Each answer varies by itself, which evens out: the more answers, the less. And the
predictor may be off throughout, which does not even out, since it is the same error in every row. So the sum is worked
out at several levels (all lengths times a factor) and these are weighed.

At one level answers are independent, and the sum of many is close to a normal distribution with the sum of their means
and variances. Limits cut: a level of 1.1 adds less than 10 % where answers end at their limit anyway.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from lengthwise.estimates import LengthEstimates

Doubles = NDArray[np.float64]

NUM_POINTS = 48  # quantiles that stand for one answer's distribution
NUM_DRAWS = 201  # of the level, and of the sum at each: the middles of equally likely parts
LEVELS: Doubles = np.linspace(-2.0, 2.0, 41)  # natural logarithms of the factor; sums lie on smooth curves between them
_POINTS = (np.arange(NUM_POINTS) + 0.5) / NUM_POINTS
_NORMAL: Doubles = ndtri((np.arange(NUM_DRAWS) + 0.5) / NUM_DRAWS)


@dataclass(frozen=True, slots=True)
class Interval:
    """`low` and `high` hold the value with the chance that was asked for, as much of it below as above."""

    low: float
    high: float


class Totals:
    """Sums over answers, which are added in chunks."""

    def __init__(self) -> None:
        self.num_answers = 0
        self.max_tokens = 0.0  # all at their limits
        self.expected_cut = 0.0  # answers that reach their limit
        self._means = np.zeros(len(LEVELS))
        self._variances = np.zeros(len(LEVELS))

    def add(self, estimates: LengthEstimates, limits: Doubles, num_answers: NDArray[np.int64]) -> Doubles:
        """Answers with their natural lengths, limits (n), and how many there are of each (n). All estimates must be
        known. Gives back the points of each one's distribution, n × NUM_POINTS, within its limit."""
        points = np.stack([estimates.quantile(float(q)) for q in _POINTS], axis=1).astype(np.float64)
        for k, level in enumerate(LEVELS):
            within = np.minimum(points * np.exp(level), limits[:, None])
            self._means[k] += num_answers @ within.mean(axis=1)
            self._variances[k] += num_answers @ within.var(axis=1)
        self.num_answers += int(num_answers.sum())
        self.max_tokens += float(num_answers @ limits)
        self.expected_cut += float(num_answers @ estimates.exceeds(limits - 1))
        return np.minimum(points, limits[:, None])

    @property
    def tokens(self) -> float:
        """The sum of the expected lengths."""
        return float(np.interp(0.0, LEVELS, self._means))

    @property
    def spread(self) -> float:
        """How far one answer lies from what is expected of it, relative to that: a standard deviation."""
        variance = float(np.interp(0.0, LEVELS, self._variances))
        return math.sqrt(variance * self.num_answers) / max(1.0, self.tokens)

    def interval(self, level_error: float, share: float = 0.9) -> Interval:
        """Of the sum, where the logarithm of the level has the standard deviation `level_error`."""
        levels = level_error * _NORMAL
        means = np.exp(np.interp(levels, LEVELS, np.log(np.maximum(self._means, 1e-9))))
        deviations = np.sqrt(np.interp(levels, LEVELS, self._variances))
        sums = means[:, None] + deviations[:, None] * _NORMAL[None, :]
        low, high = np.quantile(sums, [(1 - share) / 2, (1 + share) / 2])
        floor = float(self.num_answers)  # an answer has a token at least
        return Interval(float(np.clip(low, floor, self.max_tokens)), float(np.clip(high, floor, self.max_tokens)))
