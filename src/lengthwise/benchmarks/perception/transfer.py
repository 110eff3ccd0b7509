"""A predictor on other models' answers: its order as it is, and what some of their answers add.

Each set is split at random, many times: a third is held out, and from the rest the first n prompts adapt the predictor
(`train stack` with it as the base). Beside it stand the same n prompts without any base.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lengthwise.errors import PredictorError, UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.learning.data import LengthData
from lengthwise.learning.labels import ANSWER, Target, label_one
from lengthwise.learning.scoring import compare, figures_of, interval
from lengthwise.learning.trainers.stack import StackConfig, put_together
from lengthwise.learning.training import TrainConfig, train
from lengthwise.protocols import LengthPredictor
from lengthwise.types import Completion, Request

log = logging.getLogger("lengthwise")

Rows = NDArray[np.intp]
Split = tuple[Rows, Rows]

HELD_OUT_SHARE = 1 / 3
FIGURES = ("kendall_tau", "mae", "coverage_90")
FROM_SCRATCH = "text"  # the kind that learns the same rows without a base


@dataclass(frozen=True)
class TransferConfig:
    """How often each set is split, and how many prompts adapt. Raises ValueError on a value out of range."""

    nums: tuple[int, ...] = (50, 200, 1000)
    num_splits: int = 20

    def __post_init__(self) -> None:
        if self.num_splits < 1 or not self.nums or min(self.nums) < 1:
            raise ValueError(f"nums is {self.nums}, num_splits {self.num_splits}; both must be 1 or more.")


@dataclass(frozen=True)
class Line:
    """Figures of one predictor on one set after `num` prompts (0: as it is), by split. `asked`: how many were wanted,
    where the set has fewer."""

    data: str
    num: int
    asked: int
    adapted: bool  # else learned from these prompts alone
    samples: dict[str, list[float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        fields = {"data": self.data, "num": self.num, "asked": self.asked, "adapted": self.adapted}
        means = {name: _finite(values) for name, values in self.samples.items()}
        return {**fields, "figures": means, "ci95": {name: _ends(v) for name, v in self.samples.items()}}


def transfer(predictor: LengthPredictor, data: LengthData, config: TransferConfig) -> Iterator[Line]:
    """Lines of one set: as it is, then adapted by each number of prompts, and learned from those alone. The set must
    not be what `predictor` learned from. Raises UsageError on a set that is too small to be split."""
    splits = [_split(len(data), seed) for seed in range(config.num_splits)]
    room = len(splits[0][0])
    if room < min(config.nums):
        raise UsageError(f"{data.name} has {len(data)} prompts: a third held out leaves fewer than {min(config.nums)}.")
    base = _Known(predictor.model, data.requests, predictor.predict(data.requests))
    yield Line(data.name, 0, 0, True, _samples(splits, data, lambda _: base))
    for asked in config.nums:
        num = min(asked, room)
        yield Line(data.name, num, asked, True, _samples(splits, data, partial(_adapted, base, data, num)))
        yield Line(data.name, num, asked, False, _samples(splits, data, partial(_from_scratch, data, num)))


class _Known:
    """What a predictor says of a set's requests, asked once."""

    def __init__(self, model: str | None, requests: Sequence[Request], estimates: LengthEstimates) -> None:
        self.model = model
        self._rows = {id(request): row for row, request in enumerate(requests)}
        self._requests = requests  # kept, so that an id stays theirs
        self._estimates = estimates

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        return self._estimates[[self._rows[id(request)] for request in requests]]

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        """Learns nothing."""


def _split(num: int, seed: int) -> Split:
    """Prompts to learn from, in random order, and prompts to score on."""
    order = np.random.default_rng(seed).permutation(num)
    first = math.ceil(num * HELD_OUT_SHARE)
    return order[first:], order[:first]


def _adapted(base: LengthPredictor, data: LengthData, num: int, rows: Rows) -> LengthPredictor:
    return put_together([base], data[rows[:num]], Target(ANSWER), TrainConfig(), StackConfig())


def _from_scratch(data: LengthData, num: int, rows: Rows) -> LengthPredictor:
    return train(FROM_SCRATCH, data[rows[:num]], Target(ANSWER))


def _samples(
    splits: Sequence[Split], data: LengthData, learned: Callable[[Rows], LengthPredictor]
) -> dict[str, list[float]]:
    """Figures by split; of those only from which something could be learned."""
    found: dict[str, list[float]] = {name: [] for name in FIGURES}
    for rows, out in splits:
        try:
            predictor = learned(rows)
        except PredictorError as error:
            log.info("%s: %s", data.name, error)
            continue
        held_out = data[out]
        figures = figures_of(
            compare(predictor.predict(held_out.requests), label_one(held_out, Target(ANSWER), 0), data.limit)
        )
        for name in FIGURES:
            found[name].append(figures[name])
    return found


def _finite(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _ends(values: Sequence[float]) -> list[float | None]:
    return [end if math.isfinite(end) else None for end in interval(values)]
