"""Survival curves from samples, some of them censored: what the trained predictors share."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lengthwise.estimates import GRID, Floats

LOG_GRID: NDArray[np.float64] = np.log(GRID.astype(np.float64))


def kaplan_meier(values: ArrayLike, is_censored: ArrayLike, at: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(X > x) at each of `at`, from n ≥ 1 samples in log units; a censored one says "more than this".

    One more sample, censored at the largest, stands for what n samples can't have shown: the next one is larger
    than all of them with a chance of 1 / (n + 1). Past the largest, survival falls as exp(-x): as 1 / tokens, the
    rule by which LengthEstimates goes on past its curve.
    """
    from scipy.stats import CensoredData, ecdf

    samples = np.asarray(values, dtype=np.float64)
    largest = samples.max()
    censored = np.append(np.asarray(is_censored, dtype=bool), True)
    survival = ecdf(CensoredData.right_censored(np.append(samples, largest), censored)).sf
    known = survival.evaluate(np.minimum(at, largest))
    return np.asarray(known * np.exp(np.minimum(0.0, largest - at)), dtype=np.float64)


def kaplan_meier_median(values: ArrayLike, is_censored: ArrayLike) -> float:
    """The median of n ≥ 1 samples, some of them "more than this"; inf where more than half lie beyond all that was
    seen to end. Without censored ones it is the ordinary median."""
    from scipy.stats import CensoredData, ecdf

    survival = ecdf(CensoredData.right_censored(np.asarray(values, np.float64), np.asarray(is_censored, bool))).sf
    chances = np.append(np.round(survival.probabilities, 9), 0)  # rounded, as a half is no half of thirds
    points = np.append(survival.quantiles, np.inf)
    first, last = points[(chances <= 0.5).argmax()], points[(chances < 0.5).argmax()]
    return float((first + last) / 2)


def length_curve(lengths: ArrayLike, is_censored: ArrayLike) -> Floats:
    """P(length > n) on the grid (float32, len(GRID)), from lengths in tokens; a censored one is "more than this"."""
    return kaplan_meier(np.log(np.asarray(lengths, np.float64)), is_censored, LOG_GRID).astype(np.float32)


def checked_lengths(lengths: ArrayLike, is_censored: ArrayLike | None) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Lengths and censoring as arrays of one shape. Raises ValueError on what can't be a length."""
    tokens = np.asarray(lengths, dtype=np.float64)
    censored = np.zeros(tokens.shape, bool) if is_censored is None else np.asarray(is_censored, dtype=bool)
    if tokens.ndim != 1 or tokens.shape != censored.shape:
        raise ValueError(
            f"The lengths have shape {tokens.shape}, is_censored {censored.shape}; both must be lists of n."
        )
    is_wrong = ~((tokens >= 1) & np.isfinite(tokens))
    if is_wrong.any():
        raise ValueError(
            f"A length is a number of tokens, 1 or more; number {is_wrong.argmax()} is {tokens[is_wrong][0]}."
        )
    return tokens, censored
