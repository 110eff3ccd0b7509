"""When requests come: processes of arrivals, and other draws of a log's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lengthwise.errors import UsageError
from lengthwise.simulation.prefixes import kept_apart
from lengthwise.simulation.workload import Doubles, Workload

NUM_BLOCKS = 10  # a resampled log is made of so many stretches: long beside the time that a queue takes to clear


def at_once(num: int) -> Doubles:
    return np.zeros(num)


def poisson(num: int, requests_per_s: float, rng: np.random.Generator) -> Doubles:
    """Independent arrivals at a constant rate."""
    return bursty(num, requests_per_s, 1.0, rng)


def bursty(num: int, requests_per_s: float, variation: float, rng: np.random.Generator) -> Doubles:
    """Gaps drawn from a Gamma distribution; `variation` is their standard deviation by their mean (1: Poisson; more:
    bursts). Raises UsageError on a value out of range."""
    if not (0 < requests_per_s < np.inf and 0 < variation < np.inf):
        raise UsageError(f"Rate {requests_per_s} and variation {variation} of arrivals must be above 0.")
    shape = 1 / variation**2
    return np.cumsum(rng.gamma(shape, 1 / (shape * requests_per_s), num))


def resampled(workload: Workload, num: int, rng: np.random.Generator) -> Workload:
    """A log of `num` requests like this one: stretches of it, drawn with repetition, each with its own gaps between
    arrivals and its own lengths (a circular block bootstrap), so that bursts stay what they are. Prefixes are shared
    within a stretch only: else those of one that is drawn twice would all be found in a cache."""
    size = max(1, min(num, len(workload)) // NUM_BLOCKS)
    starts = rng.integers(0, len(workload), -(-num // size))
    picked = ((starts[:, None] + np.arange(size)[None, :]) % len(workload)).reshape(-1)[:num]
    gaps = np.diff(workload.arrival_s, prepend=workload.arrival_s[0])
    gaps[0] = gaps[1:].mean() if len(gaps) > 1 else 0.0  # between the last and the first, which nobody has seen
    drawn = workload.taken(picked, np.cumsum(gaps[picked]))
    return drawn if drawn.prefixes is None else replace(drawn, prefixes=kept_apart(drawn.prefixes, size))


def stretch(workload: Workload, num: int, rng: np.random.Generator) -> Workload:
    """`num` requests that follow each other, from a place that is drawn; all, where there are no more."""
    if num >= len(workload):
        return workload
    first = int(rng.integers(0, len(workload) - num + 1))
    picked = np.arange(first, first + num)
    return workload.taken(picked, workload.arrival_s[picked])
