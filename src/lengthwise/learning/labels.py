"""What is learned and scored: one answer's length, or a summary of several samples of the same prompt."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lengthwise.errors import UsageError
from lengthwise.learning.data import Flags, LengthData, Lengths
from lengthwise.types import Request

ANSWER = "answer"
SPELLINGS = "`answer` (one answer), `max`, `mean`, `median`, or a quantile such as `q0.9`"


@dataclass(frozen=True)
class Target:
    """`answer`: every sample is a label. `max` (the paper's), `mean`, `median`, `q0.9`: one label a prompt, a summary
    of its samples. Raises UsageError on another name."""

    name: str = ANSWER

    def __post_init__(self) -> None:
        is_quantile = re.fullmatch(r"q0?\.\d+", self.name) and 0 < float(self.name[1:]) < 1
        if self.name not in (ANSWER, "max", "mean", "median") and not is_quantile:
            raise UsageError(f"The target is {self.name!r}; it must be {SPELLINGS}.")

    def summary(self) -> Callable[[Lengths], Lengths]:
        """Samples (n × s, NaN: missing) → labels (n). Raises UsageError for `answer`, which has none."""
        if self.name == ANSWER:
            raise UsageError("One answer is no summary of samples; its labels are the samples themselves.")
        named: dict[str, Callable[..., Lengths]] = {"max": np.nanmax, "mean": np.nanmean, "median": np.nanmedian}
        if self.name in named:
            return partial(named[self.name], axis=1)
        return lambda samples: np.asarray(np.nanquantile(samples, float(self.name[1:]), axis=1), np.float64)


@dataclass(frozen=True, eq=False)
class Labels:
    """m labels: `rows` of the data that they belong to (m), `values` in tokens, and `is_censored` where the true value
    is at least the label's."""

    requests: tuple[Request, ...]
    rows: NDArray[np.intp]
    values: Lengths
    is_censored: Flags

    def __len__(self) -> int:
        return len(self.rows)


def label(data: LengthData, target: Target) -> Labels:
    """All labels of `data`. A summary of samples some of which were cut is censored if it would grow with them."""
    if target.name == ANSWER:
        rows, samples = np.nonzero(~np.isnan(data.lengths))
        return _labels(data, rows, data.lengths[rows, samples], data.is_cut[rows, samples])
    summarise = target.summary()
    # If cut answers went on for ever, what they reach is unbounded.
    with np.errstate(invalid="ignore"):
        unbounded = summarise(np.where(data.is_cut, np.inf, data.lengths))
    return _labels(data, np.arange(len(data)), summarise(data.lengths), ~np.isfinite(unbounded))


def label_one(data: LengthData, target: Target, seed: int) -> Labels:
    """One label a prompt: for `answer` that of one sample, drawn by `seed`; else as `label`."""
    if target.name != ANSWER:
        return label(data, target)
    chance = np.random.default_rng(seed).random(data.lengths.shape)
    sample = np.where(np.isnan(data.lengths), -1, chance).argmax(axis=1)
    rows = np.arange(len(data))
    return _labels(data, rows, data.lengths[rows, sample], data.is_cut[rows, sample])


def _labels(data: LengthData, rows: NDArray[np.intp], values: Lengths, is_censored: Flags) -> Labels:
    return Labels(tuple(data.requests[row] for row in rows), rows, values, is_censored)


def binned(lengths: ArrayLike, width: int) -> Lengths:
    """Lengths rounded up to a multiple of `width`, as in the paper (50); 1 leaves whole tokens as they are."""
    if width < 1:
        raise UsageError(f"The bin width is {width}; it must be 1 token or more.")
    return np.asarray(np.ceil(np.asarray(lengths, np.float64) / width) * width)
