"""Chances of bins of lengths → survival curves, corrected by what they were worth on prompts that were held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lengthwise.estimates import Floats, LengthEstimates
from lengthwise.predictors.residuals import Doubles
from lengthwise.predictors.survival import LOG_GRID, kaplan_meier

NUM_LEVELS = 201
HALF_TOKEN = 0.5  # "n tokens or more" is "more than n - 1": counts are whole, curves are not


@dataclass(frozen=True)
class BinCurves:
    """Bin i holds lengths from `edges[i]` (tokens, k, rising, the first is 1) to below the next; the last one has no
    end. Chances `stated` (rising from 0 to 1) of a length at most so long are worth `true`."""

    edges: Floats
    stated: Floats
    true: Floats

    @property
    def is_valid(self) -> bool:
        """Whether edges and levels are as said above: they may come from a file."""
        levels = (self.stated, self.true)
        ends = all(len(each) >= 2 and each[0] == 0 and each[-1] == 1 for each in levels)
        is_rising = all((np.diff(each) >= 0).all() for each in levels) and bool((np.diff(self.edges) > 0).all())
        return ends and is_rising and len(self.stated) == len(self.true) and len(self.edges) >= 2 and self.edges[0] == 1

    @classmethod
    def uncorrected(cls, edges: Floats) -> Self:
        levels = np.array([0, 1], np.float32)
        return cls(edges, levels, levels)

    @classmethod
    def fit(cls, edges: Floats, survival: Floats, lengths: Doubles, is_censored: NDArray[np.bool_]) -> Self:
        """Corrected by the curves (n × len(GRID)) that were given to n prompts whose lengths were not learned from."""
        estimates = LengthEstimates.from_survival(survival)
        ranks = 1 - estimates.exceeds(lengths - HALF_TOKEN).astype(np.float64)
        at = np.unique(np.quantile(ranks, np.arange(1, NUM_LEVELS) / NUM_LEVELS))
        at = at[(at > 0) & (at < 1)]
        true = 1 - kaplan_meier(ranks, is_censored, at)
        levels = [np.concatenate([[0], values, [1]]).astype(np.float32) for values in (at, true)]
        return cls(edges, levels[0], levels[1])

    def survival(self, chances: Floats) -> Floats:
        """P(length > n) on the grid (n × len(GRID), float32). Within a bin linear in log n; past the last edge it falls
        as 1 / n, as estimates go on past their curves."""
        points, above = self._points(chances)
        inside = _interpolated(LOG_GRID, points, above)
        beyond = above[:, -1:] * np.exp(np.minimum(0, points[-1] - LOG_GRID))
        return np.asarray(np.where(points[-1] < LOG_GRID, beyond, inside), np.float32)

    def corrected(self, survival: Floats) -> Floats:
        """Curves (n × len(GRID)) whose chances are what they were worth."""
        return np.asarray(1 - np.interp(1 - survival, self.stated, self.true), np.float32)

    def _points(self, chances: Floats) -> tuple[Doubles, Doubles]:
        """Log lengths (k), and the chances to be longer (n × k): 1 at the first."""
        above = np.flip(np.cumsum(np.flip(chances.astype(np.float64), axis=1), axis=1), axis=1)
        return np.log(self.edges.astype(np.float64) - HALF_TOKEN), above / above[:, :1]


def mixed(survival: Floats, other: Floats, share: float) -> Floats:
    """Curves (n × len(GRID)) with a share of others' chances."""
    return (1 - share) * survival + share * other


def _interpolated(at: Doubles, points: Doubles, values: Doubles) -> Doubles:
    """`values` (n × k at `points`) at other points (m) → n × m: np.interp for all rows at once."""
    right = np.clip(np.searchsorted(points, at), 1, len(points) - 1)
    share = np.clip((at - points[right - 1]) / (points[right] - points[right - 1]), 0, 1)
    found: Doubles = values[:, right - 1] + (values[:, right] - values[:, right - 1]) * share
    return found
