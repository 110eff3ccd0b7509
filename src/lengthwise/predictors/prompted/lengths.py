"""What a number that a model states of its own answer is worth: a distribution of lengths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lengthwise.errors import PredictorError
from lengthwise.estimates import Floats
from lengthwise.predictors import residuals
from lengthwise.predictors.folder import Array
from lengthwise.predictors.residuals import MAX_RESIDUAL, Doubles, ResidualTable
from lengthwise.predictors.survival import LOG_GRID

# Where nothing was learned of how right the numbers are: two of three answers within a factor of two. An assumption;
# `calibrate` and `train po` put what was seen in its place.
SPREAD = float(np.log(2))

ARRAY_SHAPES: dict[str, tuple[int | None, ...]] = {
    "stated": (None,),
    "expected": (None,),
    **residuals.ARRAY_SHAPES,
}


@dataclass(frozen=True)
class StatedLengths:
    """What was learned of stated numbers: `expected` (k, log tokens, never falling) at the `stated` ones (k, log
    tokens, rising), linear between and level outside, and how far true lengths lie from that."""

    stated: Floats
    expected: Floats
    residuals: ResidualTable

    @classmethod
    def fit(
        cls,
        stated: Doubles,
        log_lengths: Doubles,
        is_censored: NDArray[np.bool_],
        prompts: NDArray[np.intp],
        *,
        num_folds: int,
        num_levels: int,
        seed: int,
    ) -> Self:
        """From n stated numbers (log tokens) and the lengths of n answers (log tokens; a censored one is "at least
        this") to `prompts` (n, the prompt's number). A larger number never means a shorter answer (isotonic
        regression), so that numbers which mean nothing become one length. Residuals are those of prompts that the
        fold's regression has not seen."""
        folds = (np.random.default_rng(seed).permutation(prompts.max() + 1) % num_folds)[prompts]
        unseen = np.empty_like(log_lengths)
        for fold in range(num_folds):
            knots = _isotonic(stated[folds != fold], log_lengths[folds != fold])
            unseen[folds == fold] = np.interp(stated[folds == fold], *knots)
        table = ResidualTable.fit(unseen, log_lengths, is_censored, num_levels)
        at, expected = _isotonic(stated, log_lengths)
        return cls(at.astype(np.float32), expected.astype(np.float32), table)

    def survival(self, stated: Doubles) -> Floats:
        """P(length > n) on the grid (n × len(GRID)) for stated numbers (n, log tokens)."""
        expected = np.interp(stated, self.stated, self.expected)
        return self.residuals.length_survival(np.clip(expected, 0.0, MAX_RESIDUAL))

    def arrays(self) -> dict[str, Array]:
        return {"stated": self.stated, "expected": self.expected, **self.residuals.arrays()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Array], folder: Path) -> Self:
        """Raises PredictorError on arrays that don't match."""
        stated, expected = arrays["stated"], arrays["expected"]
        fits = len(stated) == len(expected) > 0
        if not fits or any((np.diff(rising) < 0).any() for rising in (stated, expected)):
            raise PredictorError(f"{folder}: the arrays don't match, or don't rise. Train the predictor again.")
        return cls(stated, expected, ResidualTable.from_arrays(arrays, folder))


def assumed_survival(stated: Doubles) -> Floats:
    """P(length > n) on the grid (n × len(GRID)) where nothing was learned: log-normal around the stated number, which
    is the median."""
    from scipy.stats import norm

    return np.asarray(norm.sf(LOG_GRID[None, :], loc=stated[:, None], scale=SPREAD), np.float32)


def _isotonic(stated: Doubles, log_lengths: Doubles) -> tuple[Doubles, Doubles]:
    """Distinct stated numbers, rising, and what is expected at each."""
    from sklearn.isotonic import IsotonicRegression

    at = np.unique(stated)
    fitted = IsotonicRegression(out_of_bounds="clip").fit(stated, log_lengths)
    return at, np.asarray(fitted.predict(at), np.float64)
