"""What a predictor of a given quality would have said of the lengths in a log that holds no prompts."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lengthwise.errors import InputError, UsageError
from lengthwise.estimates import GRID, LengthEstimates
from lengthwise.simulation.workload import Doubles, Ints

MAX_TAU_ROWS = 4_000  # Kendall's tau of so many rows is off by about 0.01
TAU_TOLERANCE = 0.005
NUM_RANKS = 100  # lengths are matched by their place among all, in hundredths


def exact(output_tokens: Ints) -> LengthEstimates:
    """The oracle."""
    return LengthEstimates.certain(output_tokens)


def kendall_tau(estimates: LengthEstimates, output_tokens: Ints) -> float:
    """Tau-b between expected and true lengths, of up to MAX_TAU_ROWS rows; 0 where all are expected to be alike."""
    from scipy.stats import kendalltau

    rows = np.linspace(0, len(output_tokens) - 1, min(len(output_tokens), MAX_TAU_ROWS)).astype(np.int64)
    found = float(kendalltau(estimates[rows].mean(), output_tokens[rows]).statistic)
    return found if math.isfinite(found) else 0.0


def of_tau(output_tokens: Ints, tau: float, rng: np.random.Generator) -> LengthEstimates:
    """A predictor whose order agrees with the true one by this much (Kendall's tau-b, from 0 to 1, where lengths
    differ): it sees log length with normal noise, whose size is found by bisection, and says all that follows from
    that for lengths that are log-normal. So its distributions are as wide as it is unsure. Raises UsageError."""
    if not 0 <= tau <= 1:
        raise UsageError(f"Kendall's tau {tau} is out of reach; give 0 (knows nothing) to 1 (the right order).")
    if tau == 1:
        return exact(output_tokens)
    logs = np.log(output_tokens)
    spread = float(logs.std()) or 1.0
    noise = rng.standard_normal(len(logs))
    low, high = 0.0, 1.0  # of the share of noise in what it sees
    share = 1.0
    for _ in range(30 if tau else 0):
        share = (low + high) / 2
        found = _tau_of(logs, noise, share, spread)
        if abs(found - tau) < TAU_TOLERANCE:
            break
        low, high = (share, high) if found > tau else (low, share)
    seen = _seen(logs, noise, share, spread)
    known = (1 - share) ** 2 / ((1 - share) ** 2 + share**2)  # share of the variance of what it sees
    centre = (
        logs.mean() + known * (seen - logs.mean()) / max(1 - share, 1e-9)
        if share < 1
        else np.full(len(logs), logs.mean())
    )
    return _log_normal(centre, spread * math.sqrt(max(1 - known, 1e-6)))


def _seen(logs: Doubles, noise: Doubles, share: float, spread: float) -> Doubles:
    seen: Doubles = logs.mean() + (1 - share) * (logs - logs.mean()) + share * spread * noise
    return seen


def _tau_of(logs: Doubles, noise: Doubles, share: float, spread: float) -> float:
    from scipy.stats import kendalltau

    rows = np.linspace(0, len(logs) - 1, min(len(logs), MAX_TAU_ROWS)).astype(np.int64)
    found = float(kendalltau(_seen(logs, noise, share, spread)[rows], logs[rows]).statistic)
    return found if math.isfinite(found) else 0.0


def _log_normal(centre: Doubles, sigma: float) -> LengthEstimates:
    from scipy.special import ndtr

    z = (np.log(GRID.astype(np.float64))[None, :] - centre[:, None]) / sigma
    return LengthEstimates.from_survival(ndtr(-z))


@dataclass(frozen=True, eq=False)
class ClassErrors:
    """A predictor that names a class, as it was recorded: P(class | place of the true length among all), NUM_RANKS ×
    classes. By places instead of tokens it can be asked of any log."""

    chances: Doubles

    @classmethod
    def of(cls, output_tokens: Ints, classes: Ints) -> ClassErrors:
        """From true lengths and the classes that were named for them (n). Ties take one place."""
        places = _places(output_tokens)
        counts = np.zeros((NUM_RANKS, int(classes.max()) + 1))
        np.add.at(counts, (places, classes), 1)
        if not counts.sum(axis=1).all():  # a place that no length has: what is near it
            filled = np.flatnonzero(counts.sum(axis=1))
            nearest = filled[np.abs(np.arange(NUM_RANKS)[:, None] - filled[None, :]).argmin(axis=1)]
            counts = counts[nearest]
        return cls(counts / counts.sum(axis=1, keepdims=True))

    @classmethod
    def read(cls, path: Path) -> ClassErrors:
        """From CSV with `output_tokens` and `pred_multiclass`. Raises InputError, with the line."""
        with path.open(encoding="utf-8", newline="") as file:
            pairs = [_pair(path, number, row) for number, row in enumerate(csv.DictReader(file), start=2)]
        if not pairs:
            raise InputError(f"{path} has no rows; it needs output_tokens and pred_multiclass.")
        lengths, classes = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
        return cls.of(lengths, classes)

    def draw(self, output_tokens: Ints, rng: np.random.Generator) -> LengthEstimates:
        """A class for each request of a log, and all that it says: how long its requests in this log are."""
        places = _places(output_tokens)
        bounds = self.chances.cumsum(axis=1)[places]
        classes = (rng.random(len(places))[:, None] > bounds[:, :-1]).sum(axis=1)
        weights = self.chances[places]  # n × classes: how much of each request is in each class
        order = np.argsort(output_tokens, kind="stable")
        below = np.searchsorted(output_tokens[order], GRID, side="right")
        mass = np.concatenate([np.zeros((1, weights.shape[1])), weights[order].cumsum(axis=0)])
        survival = 1 - mass[below] / np.maximum(mass[-1], 1e-12)
        return LengthEstimates.from_survival(np.clip(survival, 0, 1).T[classes])


def _places(output_tokens: Ints) -> Ints:
    order = np.sort(output_tokens)
    middle = (np.searchsorted(order, output_tokens, "left") + np.searchsorted(order, output_tokens, "right")) / 2
    places: Ints = np.minimum(middle * NUM_RANKS / len(order), NUM_RANKS - 1).astype(np.int64)
    return places


def _pair(path: Path, number: int, row: dict[str, str]) -> Sequence[int]:
    try:
        pair = int(row["output_tokens"]), int(row["pred_multiclass"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}, line {number}: output_tokens and pred_multiclass must be whole numbers.") from error
    if pair[0] < 1 or not 0 <= pair[1] < 1000:
        raise InputError(f"{path}, line {number} has {pair}; a length of 1 or more and a class from 0 were expected.")
    return pair
