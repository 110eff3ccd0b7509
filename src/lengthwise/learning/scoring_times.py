"""How long a predictor takes for a prompt, alone and in batches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lengthwise.protocols import LengthPredictor
from lengthwise.types import Request

MIN_PASSES, MAX_PASSES = 5, 50
BUDGET_S = 1.0  # for each of the two
MAX_SINGLE = 200
BATCH = 1_000


@dataclass(frozen=True)
class Times:
    """Medians of several passes, in microseconds a prompt, and between which the passes lie."""

    figures: dict[str, float]
    ci95: dict[str, tuple[float, float]]


def time_predictor(predictor: LengthPredictor, requests: Sequence[Request]) -> Times:
    """Passes over up to 1,000 prompts at once, and over up to 200 one by one; what loads late is loaded before."""
    predictor.predict(requests[:1])
    batch = requests[:BATCH]
    singles = requests[:MAX_SINGLE]
    passes = {
        "us_per_prompt_batch": [us / len(batch) for us in _batch_passes(predictor, batch)],
        "us_per_prompt_single": [_one_us(predictor, [request]) for request in singles],
    }
    return Times(
        {name: float(np.median(values)) for name, values in passes.items()},
        {name: _median_interval(values) for name, values in passes.items()},
    )


def _batch_passes(predictor: LengthPredictor, requests: Sequence[Request]) -> list[float]:
    passes: list[float] = []
    while len(passes) < MIN_PASSES or (sum(passes) < BUDGET_S * 1e6 and len(passes) < MAX_PASSES):
        passes.append(_one_us(predictor, requests))
    return passes


def _one_us(predictor: LengthPredictor, requests: Sequence[Request]) -> float:
    started_ns = time.perf_counter_ns()
    predictor.predict(requests)
    return (time.perf_counter_ns() - started_ns) / 1e3


def _median_interval(values: list[float]) -> tuple[float, float]:
    """95 % interval of the median, from ranks."""
    ordered = np.sort(values)
    spread = 0.98 * np.sqrt(len(ordered))
    low = max(int(len(ordered) / 2 - spread), 0)
    high = min(int(np.ceil(len(ordered) / 2 + spread)), len(ordered) - 1)
    return float(ordered[low]), float(ordered[high])
