"""Curves that are moved along the grid, opened, and given other chances: what calibration and stacking share."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lengthwise.estimates import GRID, POINTS_PER_OCTAVE, Floats, LengthEstimates
from lengthwise.predictors.residuals import Doubles
from lengthwise.predictors.survival import kaplan_meier

MAX_LEVELS = 1001

# A curve says nothing of lengths that it calls impossible: all have the rank 0 or 1. So it is mixed with a little of
# one without ends (half of the answers at n tokens reach 2n, around the same median), which a calibration then weighs.
ENDLESS_SHARE = 0.02
_GOLDEN = 0.6180339887498949  # its multiples fill the unit interval evenly, in whatever order lengths come


def scaled(estimates: LengthEstimates, octaves: ArrayLike) -> LengthEstimates:
    """All lengths times 2 ** `octaves` (one for all, or one a row): the curves, moved along the grid."""
    moved = np.broadcast_to(np.asarray(octaves, np.float64), len(estimates))
    position = np.arange(len(GRID)) - moved[:, None] * POINTS_PER_OCTAVE
    left = np.floor(position).astype(np.intp)
    share = (position - left).astype(np.float32)
    padded = np.pad(estimates.survival, ((0, 0), (1, 1)), mode="edge")
    padded[:, 0] = 1
    before, after = (
        np.take_along_axis(padded, np.clip(index + 1, 0, len(GRID) + 1), axis=1) for index in (left, left + 1)
    )
    return LengthEstimates.from_survival(before + (after - before) * share)


def opened(estimates: LengthEstimates) -> LengthEstimates:
    """Curves with a little chance for every length; what is unknown stays so."""
    endless = 1 / (1 + GRID / estimates.median[:, None])
    return LengthEstimates.from_survival((1 - ENDLESS_SHARE) * estimates.survival + ENDLESS_SHARE * endless)


def levels(estimates: LengthEstimates, tokens: Doubles, is_censored: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """What stated chances are worth (k stated, k true), from lengths that they were not fitted on: both rise from 0
    to 1.

    n tokens stand for all lengths above n - 1, evenly: whole numbers come often, and equal ranks would say nothing of
    the chances between them.
    """
    spread = np.arange(len(tokens)) * _GOLDEN % 1
    ranks = 1 - estimates.exceeds(np.maximum(tokens - spread, 0.5)).astype(np.float64)
    at = np.unique(ranks)
    at = at[np.linspace(0, len(at) - 1, min(len(at), MAX_LEVELS - 2)).round().astype(int)]
    true = 1 - kaplan_meier(ranks, is_censored, at)
    inside = (at > 0) & (at < 1)
    found = [np.concatenate([[0.0], values[inside], [1.0]]).astype(np.float32) for values in (at, true)]
    return found[0], found[1]


def are_levels(stated: Floats, true: Floats) -> bool:
    """Whether `levels` could have made them."""
    return stated.shape == true.shape and _rises(stated) and _rises(true)


def corrected(estimates: LengthEstimates, stated: Floats, true: Floats) -> LengthEstimates:
    """Stated chances replaced by what they are worth. Rows of which nothing is known stay so."""
    chances = 1 - np.interp(1 - opened(estimates).survival, stated, true)
    is_known = np.isfinite(estimates.median)[:, None]
    return LengthEstimates.from_survival(np.where(is_known, chances, estimates.survival))


def _rises(values: Floats) -> bool:
    return len(values) >= 2 and values[0] == 0 and values[-1] == 1 and bool((np.diff(values) >= 0).all())
