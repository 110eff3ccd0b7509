"""Timed passes → a linear cost, and how far it lies from passes that it was not fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from lengthwise.costs import StepCost

Doubles = NDArray[np.float64]


class StepSample(NamedTuple):
    """A decode step of `num_rows` rows, with so many tokens in the cache, all together."""

    num_rows: int
    cached_tokens: int
    seconds: float


class ReadSample(NamedTuple):
    """A pass that read so many tokens of prompts."""

    num_tokens: int
    seconds: float


def fit_cost(steps: Sequence[StepSample], reads: Sequence[ReadSample]) -> StepCost:
    """Least squares of the relative deviations, no term below 0. Where every row had the same number of tokens, steps
    don't tell what a token in the cache costs: it is a part of the row then. Where nothing was read, a token of a
    prompt is taken to cost what a row costs in a step.

    `relative_error`: each pass against the line through all others of its kind, root mean square; 1 where no kind has
    two passes."""
    step_terms, step_s = _step_terms(steps)
    fixed_s, row_s, *others = _shares(step_terms, step_s)
    context_s = others[0] if others else 0.0
    if not fixed_s + row_s > 0:  # all was put on tokens: so rough were the times that they tell nothing of those
        fixed_s, row_s = _shares(step_terms[:, :2], step_s)
        context_s = 0.0
    misses = [_held_out(step_terms, step_s)]
    read_fixed_s, read_token_s = 0.0, row_s
    if reads:
        tokens, read_s = (np.array(column, float) for column in zip(*reads, strict=True))
        read_terms = np.stack([np.ones_like(tokens), tokens], axis=1)
        read_fixed_s, read_token_s = _shares(read_terms, read_s)
        misses.append(_held_out(read_terms, read_s))
    all_misses = np.concatenate(misses)
    error = float(np.sqrt(np.mean(all_misses**2))) if len(all_misses) else 1.0
    return StepCost(fixed_s, row_s, context_s, read_fixed_s, read_token_s, error)


def _step_terms(steps: Sequence[StepSample]) -> tuple[Doubles, Doubles]:
    """What the terms of a step's cost are multiplied by (n × 2 or 3), and seconds (n)."""
    rows, tokens, seconds = (np.array(column, float) for column in zip(*steps, strict=True))
    terms = [np.ones_like(rows), rows, tokens]
    return np.stack(terms if np.ptp(tokens / rows) > 0 else terms[:2], axis=1), seconds


def _shares(terms: Doubles, seconds: Doubles) -> list[float]:
    found: list[float] = nnls(terms / seconds[:, None], np.ones_like(seconds))[0].tolist()
    return found


def _held_out(terms: Doubles, seconds: Doubles) -> Doubles:
    """Each pass's relative deviation from what the others foretell (n); none where there are no others."""
    if len(seconds) < 2:
        return np.zeros(0)
    others = ~np.eye(len(seconds), dtype=bool)
    foretold = [terms[i] @ _shares(terms[others[i]], seconds[others[i]]) for i in range(len(seconds))]
    return np.array(foretold) / seconds - 1
