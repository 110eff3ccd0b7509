"""How soon a request should start, by what is known of its length: a number a request, the highest first.

An urgency is one over the tokens that count (or those tokens, where the longest go first), so that one that grows by a
factor means the same under every order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lengthwise.errors import UsageError
from lengthwise.estimates import GRID, MAX_TOKENS, LengthEstimates
from lengthwise.scheduling.rows import Doubles

# Estimates, within their limits and given the tokens so far, and those tokens (n) → urgencies (n), above 0.
Urgency = Callable[[LengthEstimates, Doubles], Doubles]


def no_order(estimates: LengthEstimates, written: Doubles) -> Doubles:
    """All alike: arrival order. With ageing the highest response ratio first (1 + wait ÷ service)."""
    return np.ones(len(estimates))


def shortest_mean(estimates: LengthEstimates, written: Doubles) -> Doubles:
    """The fewest expected tokens first: the best that can be done without putting rows back (shortest expected
    processing time first)."""
    return 1 / tokens_left(estimates.mean(), written)


def shortest_median(estimates: LengthEstimates, written: Doubles) -> Doubles:
    """The smallest median first."""
    return 1 / tokens_left(estimates.median, written)


def shortest_quantile(q: float) -> Urgency:
    """The smallest q-quantile first. Raises UsageError where q is no quantile."""
    if not 0 < q < 1:
        raise UsageError(f"The quantile to order by is {q}; it must lie between 0 and 1.")
    return lambda estimates, written: 1 / tokens_left(estimates.quantile(q), written)


def shortest_tail_mean(weight: float, tail: float = 0.9) -> Urgency:
    """The smallest mean first, inflated by its tail: (1 - weight) · E[L] + weight · E[L | L beyond its tail quantile].
    What may turn out very long waits, so that it holds up nobody (after arXiv 2604.00499). Raises UsageError."""
    if not (0 <= weight <= 1 and 0 < tail < 1):
        raise UsageError(f"Tail weight {weight} and tail quantile {tail} must lie between 0 and 1.")

    def urgency(estimates: LengthEstimates, written: Doubles) -> Doubles:
        far = np.minimum(estimates.quantile(tail), MAX_TOKENS)
        beyond = np.minimum(estimates.given(far).mean(), estimates.limit)  # a limit that the tail starts on is no error
        return 1 / tokens_left((1 - weight) * estimates.mean() + weight * beyond, written)

    return urgency


def longest_mean(estimates: LengthEstimates, written: Doubles) -> Doubles:
    """The most expected tokens first: the end of a job without idle rows (Graham 1969); the worst for waiting."""
    return tokens_left(estimates.mean(), written)


def gittins(estimates: LengthEstimates, written: Doubles) -> Doubles:
    """The Gittins index: the best chance to end, for each token spent on it, that any stopping point n offers:
    max over n of P(a < L ≤ n | L > a) / E[min(L, n) - a | L > a], a the tokens written. Of a certain length it is one
    over what is left."""
    curves = LengthEstimates(estimates.survival, np.zeros_like(estimates.limit), np.full_like(estimates.limit, np.inf))
    above = curves.exceeds(written)  # P(L > a), not yet conditional
    ended = above[:, None] - estimates.survival
    spent = _area(estimates.survival) - curves.capped(np.maximum(written, 1e-3)).mean()[:, None]
    is_inside = (written[:, None] < GRID) & (estimates.limit[:, None] > GRID) & (spent > 0)
    rates = np.divide(ended, spent, out=np.zeros_like(spent, np.float64), where=is_inside)
    at_the_end = 1 / tokens_left(estimates.mean(), written)  # n is the limit: it ends there with certainty
    index: Doubles = np.maximum(rates.max(axis=1), at_the_end)
    return index


def tokens_left(tokens: NDArray[np.float32] | Doubles, written: Doubles) -> Doubles:
    """Tokens beyond those written, at least one and at most as many as the grid has."""
    left: Doubles = np.minimum(np.maximum(tokens - written, 1.0), MAX_TOKENS)  # np.clip takes three times as long
    return left


def _area(survival: NDArray[np.float32]) -> Doubles:
    """E[min(L, n)] at each grid point (n × len(GRID)): S is 1 below one token, then linear in log n."""
    grid = GRID.astype(np.float64)
    slope = np.diff(grid) / np.diff(np.log(grid))
    before, after = survival[:, :-1], survival[:, 1:]
    cells = after * grid[1:] - before * grid[:-1] - (after - before) * slope
    return np.concatenate([np.ones((len(survival), 1)), 1 + np.cumsum(cells, axis=1)], axis=1)
