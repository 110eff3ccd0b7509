"""Lengths → what the heads learn: chances of bins, a length that was cut being "at least" that.

Edges come from the data, so that nothing depends on the limit at which its answers were cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lengthwise.estimates import Floats
from lengthwise.learning.data import Flags, Lengths

TAIL_LEVELS = (0.99, 0.995)  # further edges for lengths without a limit: past the last one a curve knows nothing


def bin_edges(lengths: Lengths, limit: int | None, num_bins: int) -> Floats:
    """Rising edges from 1 (at most `num_bins` and two). The last bin is what reached the limit, if there is one.

    Each bin holds the same share of the sum of roots of lengths: by number alone, the long answers that errors come
    from would be in two or three bins; by tokens, the short ones.
    """
    ordered = np.sort(lengths[~np.isnan(lengths)])
    weights = np.cumsum(np.sqrt(ordered))
    places = np.searchsorted(weights, weights[-1] * np.arange(1, num_bins) / num_bins)
    found = [*ordered[places], *np.quantile(ordered, TAIL_LEVELS), *([] if limit is None else [limit])]
    edges = np.unique(np.round(found))
    inside = edges[(edges > 1) & (edges <= (np.inf if limit is None else limit))]
    rising = inside if len(inside) else [ordered[-1] + 1]  # all are 1 token, or all reached a limit of 1
    return np.concatenate([[1], rising]).astype(np.float32)


@dataclass(frozen=True, eq=False)
class HeadTargets:
    """For n prompts and h heads: `shares` (n × h × k), how much of a head's labels lies in each bin, and `at_least`
    (n × h × k), how much of them is known to lie in that bin or above. Where a head has no label both are 0."""

    shares: Floats
    at_least: Floats


def head_targets(heads: list[tuple[Lengths, Flags]], edges: Floats, smoothing: float) -> HeadTargets:
    """From the lengths of each head (n × s, NaN where missing) and which of them were cut."""
    spread = smoothing * float(np.sqrt(np.nanmedian(heads[0][0])))
    columns = [_one_head(lengths, is_cut, edges, spread) for lengths, is_cut in heads]
    return HeadTargets(*(np.stack([column[part] for column in columns], axis=1) for part in (0, 1)))


def _one_head(lengths: Lengths, is_cut: Flags, edges: Floats, spread: float) -> tuple[Floats, Floats]:
    is_there = ~np.isnan(lengths)
    counts = np.maximum(is_there.sum(axis=1), 1)
    shares = np.zeros((len(lengths), len(edges)), np.float32)
    at_least = np.zeros_like(shares)
    for sample in range(lengths.shape[1]):
        known = np.flatnonzero(is_there[:, sample] & ~is_cut[:, sample])
        shares[known] += _spread_out(lengths[known, sample], edges, spread) / counts[known, None]
        cut = np.flatnonzero(is_there[:, sample] & is_cut[:, sample])
        at_least[cut, bin_of(lengths[cut, sample], edges)] += 1 / counts[cut]
    return shares, at_least


def bin_of(lengths: Lengths, edges: Floats) -> NDArray[np.intp]:
    return np.maximum(np.searchsorted(edges, lengths, side="right") - 1, 0)


def _spread_out(lengths: Lengths, edges: Floats, spread: float) -> Lengths:
    """A normal distribution around the root of each length, cut off at the ends: neighbouring bins are no surprise."""
    from scipy.stats import norm

    below = norm.cdf((np.sqrt(edges.astype(np.float64) - 0.5) - np.sqrt(lengths)[:, None]) / spread)
    below[:, 0] = 0
    shares = np.diff(below, axis=1, append=1)
    return np.asarray(shares, np.float64)
