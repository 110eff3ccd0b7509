"""How good a predictor is: the paper's figures, the distribution's, order and time, with intervals.

The predicted number is the estimate's median. Where the data has a limit, both sides end there, as in the paper: a
label of 512 and more counts as 512, and so does a prediction. What each figure is stands in `docs/metrics.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lengthwise.errors import UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.learning.data import LengthData, Lengths
from lengthwise.learning.labels import Labels, Target, label_one
from lengthwise.learning.scoring_references import reference_points
from lengthwise.learning.scoring_times import time_predictor
from lengthwise.protocols import LengthPredictor

COVERAGES = (50, 80, 90, 95)
QUANTILES = tuple(round(0.05 * step, 2) for step in range(1, 20))

Metric = Callable[["Scored", NDArray[np.intp]], float]


@dataclass(frozen=True, eq=False)
class Scored:
    """Labels (m) and what was predicted of them. `points` are NaN where nothing was; `quantiles` (19 × m) at QUANTILES,
    `edges` (2 × m) for each of COVERAGES. Without a distribution (a reference) both are empty."""

    labels: Lengths
    is_censored: NDArray[np.bool_]
    points: Lengths
    has_number: NDArray[np.bool_]
    quantiles: Lengths = field(default_factory=lambda: np.empty((0, 0)))
    edges: dict[int, Lengths] = field(default_factory=dict)

    @property
    def errors(self) -> Lengths:
        """Predicted less true, in tokens; 0 where a label is "at least" and the prediction lies beyond it."""
        errors = self.points - self.labels
        return np.where(self.is_censored, np.minimum(errors, 0), errors)


@dataclass(frozen=True)
class ScoreConfig:
    """How intervals are made. Raises ValueError on a value out of range."""

    num_resamples: int = 500  # the ends of a 95 % interval then vary by about a tenth of its width
    seed: int = 0  # of the resamples, and of the sample that is drawn for one answer
    is_timed: bool = True

    def __post_init__(self) -> None:
        if self.num_resamples < 1:
            raise ValueError(f"num_resamples is {self.num_resamples}; it must be 1 or more.")


@dataclass(frozen=True)
class Score:
    """Figures by name, and their 95 % intervals; NaN where there is none (no order among equal labels)."""

    target: str
    data: str
    num_prompts: int
    num_censored: int
    limit: int | None
    figures: dict[str, float]
    ci95: dict[str, tuple[float, float]]
    beside: dict[str, dict[str, float]]  # baselines and references: the point figures
    num_leaked: int | None = None  # prompts that were learned from, where that is known

    def to_json(self) -> dict[str, Any]:
        """All of it, NaN as null."""
        return {
            "target": self.target,
            "data": self.data,
            "num_prompts": self.num_prompts,
            "num_censored": self.num_censored,
            "num_leaked": self.num_leaked,
            "limit": self.limit,
            **_finite(self.figures),
            "ci95": {name: [_or_none(low), _or_none(high)] for name, (low, high) in self.ci95.items()},
            "beside": {name: _finite(figures) for name, figures in self.beside.items()},
        }


def score(
    predictor: LengthPredictor,
    data: LengthData,
    target: Target,
    *,
    learned: LengthData | None = None,
    config: ScoreConfig | None = None,
) -> Score:
    """Figures of `predictor` on `data`, one label a prompt, with baselines and two-sample references beside them.

    `learned` is what it was trained on: baselines are then fitted on that, and prompts that stand in both are counted;
    without it the baselines are fitted on the labels that they are scored on, which flatters them. Takes a second or
    two for 1,000 prompts. Raises UsageError on an empty set.
    """
    from lengthwise.learning.splits import leaked

    config = config or ScoreConfig()
    if not len(data):
        raise UsageError(f"{data.name} holds no rows; there is nothing to score on.")
    labels = label_one(data, target, config.seed)
    scored = compare(predictor.predict(labels.requests), labels, data.limit)
    times = time_predictor(predictor, labels.requests) if config.is_timed else None
    baseline_labels = label_one(learned.within(data.limit), target, config.seed) if learned else labels
    points = reference_points(data, target, labels, baseline_labels, config.seed)
    return Score(
        target=target.name,
        data=data.name,
        num_prompts=len(data),
        num_censored=int(labels.is_censored.sum()),
        limit=data.limit,
        figures={**figures_of(scored), **(times.figures if times else {})},
        ci95={**_intervals(scored, config), **(times.ci95 if times else {})},
        beside={name: _point_figures(*columns) for name, columns in points.items()},
        num_leaked=None if learned is None else len(leaked(learned.requests, data.requests)),
    )


def compare(estimates: LengthEstimates, labels: Labels, limit: int | None) -> Scored:
    """Labels beside what was predicted. Where nothing is known the limit stands for the number, if there is one."""
    has_number = np.isfinite(estimates.median)
    limited = estimates.capped(math.inf if limit is None else limit)
    quantiles = np.array([limited.quantile(q) for q in QUANTILES], np.float64)
    edges = {share: _edges(limited, share / 100) for share in COVERAGES}
    points = limited.median.astype(np.float64)
    points[~np.isfinite(points)] = np.nan
    return Scored(labels.values, labels.is_censored, points, has_number, quantiles, edges)


def _edges(estimates: LengthEstimates, share: float) -> Lengths:
    low, high = (1 - share) / 2, (1 + share) / 2
    return np.array([estimates.quantile(low), estimates.quantile(high)], np.float64)


# -- figures ---------------------------------------------------------------------------------------------------


def figures_of(scored: Scored, rows: NDArray[np.intp] | None = None) -> dict[str, float]:
    """All figures but times, of all labels or of some rows (with repeats)."""
    picked = np.arange(len(scored.labels)) if rows is None else rows
    return {name: metric(scored, picked) for name, metric in _METRICS.items()}


def _mae(scored: Scored, rows: NDArray[np.intp]) -> float:
    return _mean(np.abs(scored.errors[rows]))


def _bias(scored: Scored, rows: NDArray[np.intp]) -> float:
    return _mean(scored.errors[rows])


def _within(tokens: float) -> Metric:
    # A prediction that isn't there is no hit.
    return lambda scored, rows: float(np.mean(np.abs(scored.errors[rows]) <= tokens))


def _failure_ratio(scored: Scored, rows: NDArray[np.intp]) -> float:
    return float(1 - scored.has_number[rows].mean())


def _tau(scored: Scored, rows: NDArray[np.intp]) -> float:
    from scipy.stats import kendalltau

    points = scored.points[rows]
    is_there = ~np.isnan(points)
    if is_there.sum() < 2:
        return math.nan
    return float(kendalltau(points[is_there], scored.labels[rows][is_there]).statistic)


def _pinball(scored: Scored, rows: NDArray[np.intp]) -> float:
    """Twice the mean quantile loss at 19 levels: tokens, comparable with the error of a median."""
    levels = np.array(QUANTILES)[:, None]
    short = scored.labels[rows] - scored.quantiles[:, rows]
    long = np.where(scored.is_censored[rows], 0, -short)
    return _mean(2 * np.maximum(levels * short, (1 - levels) * long).mean(axis=0))


def _coverage(share: int) -> Metric:
    return lambda scored, rows: float(1 - np.mean(_is_below(scored, share, rows) | _is_above(scored, share, rows)))


def _width(share: int) -> Metric:
    def metric(scored: Scored, rows: NDArray[np.intp]) -> float:
        low, high = scored.edges[share][:, rows]
        return _mean(np.where(np.isfinite(low), high, np.inf) - np.where(np.isfinite(low), low, 0))

    return metric


def _is_below(scored: Scored, share: int, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    """An "at least" label is below nothing."""
    return np.asarray((scored.labels[rows] < scored.edges[share][0, rows]) & ~scored.is_censored[rows])


def _is_above(scored: Scored, share: int, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    return np.asarray(scored.labels[rows] > scored.edges[share][1, rows])


def _where_known(metric: Metric) -> Metric:
    """Of the prompts that a distribution was given for: "nothing is known" has no interval that could hold. NaN where
    there is none."""

    def known(scored: Scored, rows: NDArray[np.intp]) -> float:
        left = rows[scored.has_number[rows]]
        return metric(scored, left) if len(left) else math.nan

    return known


def _below_90(scored: Scored, rows: NDArray[np.intp]) -> float:
    return float(np.mean(_is_below(scored, 90, rows)))


def _above_90(scored: Scored, rows: NDArray[np.intp]) -> float:
    return float(np.mean(_is_above(scored, 90, rows)))


_POINT_METRICS: dict[str, Metric] = {
    "mae": _mae,
    "acc_50": _within(50),
    "acc_100": _within(100),
    "failure_ratio": _failure_ratio,
    "kendall_tau": _tau,
    "bias": _bias,
}
_METRICS: dict[str, Metric] = {
    **_POINT_METRICS,
    "pinball": _where_known(_pinball),
    **{f"coverage_{share}": _where_known(_coverage(share)) for share in COVERAGES},
    **{f"width_{share}": _where_known(_width(share)) for share in COVERAGES},
    "below_90": _where_known(_below_90),
    "above_90": _where_known(_above_90),
}


def _point_figures(labels: Lengths, is_censored: NDArray[np.bool_], points: Lengths) -> dict[str, float]:
    scored = Scored(labels, is_censored, points, ~np.isnan(points))
    rows = np.arange(len(labels))
    return {name: metric(scored, rows) for name, metric in _POINT_METRICS.items()}


def _intervals(scored: Scored, config: ScoreConfig) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap over prompts."""
    rng = np.random.default_rng(config.seed)
    num = len(scored.labels)
    draws = [figures_of(scored, rng.integers(0, num, num)) for _ in range(config.num_resamples)]
    return {name: interval([draw[name] for draw in draws]) for name in _METRICS}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The middle 95 % of draws; NaN where none is a number."""
    known = [value for value in values if math.isfinite(value)]
    low, high = np.quantile(known, [0.025, 0.975]) if known else (math.nan, math.nan)
    return float(low), float(high)


def _mean(values: Lengths) -> float:
    """Of those that are there; NaN of none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _finite(figures: dict[str, float]) -> dict[str, float | None]:
    return {name: _or_none(value) for name, value in figures.items()}


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
