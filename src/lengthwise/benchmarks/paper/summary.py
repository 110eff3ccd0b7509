"""Samples of a row → its figures, with intervals, and the gain over the baseline of the same samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lengthwise.benchmarks.paper.rows import Row
from lengthwise.learning.scoring import interval as middle
from lengthwise.simulation.study import interval as student

GAIN = "gain_vs_vanilla"
FIGURES = ("samples_per_s", GAIN, "average_length", "effective_token_ratio", "rerun_ratio")
PACE = "vanilla_beside_per_s"  # of a few requests in vanilla batches, about the time of a run
BESIDE = ("average_length_of_last_attempts", "predict_s", PACE)  # that are no columns of the paper's

Sample = dict[str, float]
Ends = tuple[float, float]


@dataclass(frozen=True)
class Sampled:
    """A row's samples: one a seed, and for each seed draws of prompts (none where it was really run)."""

    seeds: tuple[int, ...]
    points: tuple[Sample, ...]
    draws: tuple[tuple[Sample, ...], ...]


@dataclass(frozen=True)
class Line:
    """A row with its figures; none where `reason` says why. `ci95` lacks what has no interval (one run)."""

    row: Row
    figures: dict[str, float] = field(default_factory=dict)
    ci95: dict[str, Ends] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        named = {name: self.figures.get(name) for name in (*FIGURES, *BESIDE)}
        ends = {name: list(self.ci95[name]) if name in self.ci95 else None for name in FIGURES}
        return {"title": self.row.title, **named, "ci95": ends, "seeds": list(self.seeds), "reason": self.reason}


def summed_up(row: Row, sampled: Sampled, base: Sampled) -> Line:
    """Of recorded lengths: the median and the middle 95 % of all seeds' samples, each compared with the baseline's of
    the same prompts in the same order. Of runs: the mean over seeds with Student's interval; gains are compared seed by
    seed, as logarithms, each rate by the machine's pace beside it."""
    with_gain = _with_gain(sampled, base)
    figures, ci95 = _of_draws(with_gain) if any(sampled.draws) else _of_runs(with_gain)
    return Line(row, figures, ci95, sampled.seeds)


def _with_gain(sampled: Sampled, base: Sampled) -> Sampled:
    """Seeds that the baseline lacks are left out."""
    places = {seed: place for place, seed in enumerate(base.seeds)}
    shared = [(place, places[seed]) for place, seed in enumerate(sampled.seeds) if seed in places]
    points = tuple(_gained(sampled.points[here], base.points[there]) for here, there in shared)
    draws = tuple(
        tuple(_gained(*pair) for pair in zip(sampled.draws[here], base.draws[there], strict=True))
        for here, there in shared
    )
    return Sampled(tuple(sampled.seeds[here] for here, _ in shared), points, draws)


def _gained(sample: Sample, base: Sample) -> Sample:
    return {**sample, GAIN: _by_pace(sample) / _by_pace(base) - 1}


def _by_pace(sample: Sample) -> float:
    """Where nothing was run, no machine drifted."""
    return sample["samples_per_s"] / sample.get(PACE, 1.0)


def _of_draws(sampled: Sampled) -> tuple[dict[str, float], dict[str, Ends]]:
    samples = [*sampled.points, *(draw for of_seed in sampled.draws for draw in of_seed)]
    columns = {name: [one[name] for one in samples] for name in sampled.points[0]}
    figures = {name: float(np.median(values)) for name, values in columns.items()}
    return figures, {name: middle(columns[name]) for name in FIGURES}


def _of_runs(sampled: Sampled) -> tuple[dict[str, float], dict[str, Ends]]:
    figures, ci95 = {}, {}
    for name in sampled.points[0]:
        figures[name], ends = _mean([point[name] for point in sampled.points], is_gain=name == GAIN)
        if ends is not None and name in FIGURES:
            ci95[name] = ends
    return figures, ci95


def _mean(values: Sequence[float], *, is_gain: bool) -> tuple[float, Ends | None]:
    if not is_gain:
        ends = student(np.array(values))
        return float(np.mean(values)), None if ends is None else (max(0.0, ends[0]), ends[1])
    logs = np.log1p(values)
    ends = student(logs)
    return math.expm1(logs.mean()), None if ends is None else (math.expm1(ends[0]), math.expm1(ends[1]))
