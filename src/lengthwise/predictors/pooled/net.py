"""A small network from a prompt's pooled states to the chances of each length: numpy only, as it stands in a folder.

Its outputs are the cells of the estimates' grid, from the shortest to the longest length that was learned from, and
one for all beyond: one network says the whole distribution, and a length that was cut is "one of the cells above".
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lengthwise.errors import PredictorError
from lengthwise.estimates import GRID, Floats
from lengthwise.predictors import folder as files
from lengthwise.predictors.residuals import Doubles
from lengthwise.predictors.survival import LOG_GRID


@dataclass(frozen=True)
class NetConfig:
    """The network and its training. Raises ValueError on a value that can't work."""

    hidden_size: int = 256
    num_layers: int = 2  # hidden ones
    dropout: float = 0.5
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    batch_size: int = 128
    max_epochs: int = 100
    patience: int = 8  # epochs without a gain on held-out prompts

    def __post_init__(self) -> None:
        for name in ("hidden_size", "num_layers", "batch_size", "max_epochs", "patience"):
            if not (isinstance(getattr(self, name), int) and getattr(self, name) >= 1):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a whole number, 1 or more.")
        if not (self.learning_rate > 0 and self.weight_decay >= 0 and 0 <= self.dropout < 1):
            raise ValueError(
                f"learning_rate is {self.learning_rate}, weight_decay {self.weight_decay}, dropout {self.dropout}; "
                "they must be above 0, 0 or more, and from 0 to below 1."
            )


@dataclass(frozen=True, eq=False)
class Examples:
    """States (m × width) and how long their answers were: m lengths in tokens, "more than this" where censored."""

    states: Floats
    lengths: Doubles
    is_censored: NDArray[np.bool_]


@dataclass(frozen=True)
class Cells:
    """Cells `first` to `last` of the grid: cell i holds lengths above GRID[i - 1] up to GRID[i]."""

    first: int
    last: int

    @classmethod
    def of(cls, lengths: ArrayLike) -> Cells:
        """Those that n ≥ 1 lengths (tokens) lie in, and all between."""
        cells = np.searchsorted(GRID, np.asarray(lengths, np.float32))
        return cls(int(cells.min()), int(cells.max()))

    @property
    def num_outputs(self) -> int:
        return self.last - self.first + 2

    def shares(self, lengths: ArrayLike, is_censored: ArrayLike) -> Floats:
        """n × outputs: which outputs agree with each length. A censored one is "more than this": all cells above
        agree, and the upper part of its own, by its share in log tokens."""
        log_lengths = np.log(np.asarray(lengths, np.float64))
        cell = np.clip(np.searchsorted(GRID, np.asarray(lengths, np.float32)) - self.first, 0, self.num_outputs - 1)
        outputs = np.arange(self.num_outputs)
        own = (outputs == cell[:, None]).astype(np.float64)
        edges = np.append(LOG_GRID[self.first : self.last + 1], np.inf)
        above = (outputs > cell[:, None]) + own * self._upper_part(log_lengths, edges[cell])[:, None]
        agreeing: Floats = np.where(np.asarray(is_censored, bool)[:, None], above, own).astype(np.float32)
        return agreeing

    def survival(self, chances: Floats) -> Floats:
        """P(length > n) on the grid (n × len(GRID)) from the outputs' chances (n × outputs). Past the last cell it
        falls as 1 / n, the rule by which LengthEstimates goes on past its curve."""
        left = np.maximum(1 - np.cumsum(chances[:, :-1], axis=1, dtype=np.float64), 0)
        before = np.ones((len(chances), self.first))
        beyond = left[:, -1:] * (GRID[self.last] / GRID[self.last + 1 :])
        return np.hstack([before, left, beyond]).astype(np.float32)

    @staticmethod
    def _upper_part(log_lengths: Doubles, upper: Doubles) -> Doubles:
        """How much of its cell lies above each length; all of it in the open one."""
        step = LOG_GRID[1] - LOG_GRID[0]
        return np.asarray(np.where(np.isfinite(upper), np.clip((upper - log_lengths) / step, 0, 1), 1.0))


@dataclass(frozen=True, eq=False)
class PooledNet:
    """Standardised states through layers with ReLU between them. `layers` are (weights, bias): inputs × outputs and
    outputs."""

    mean: Floats
    scale: Floats
    layers: Sequence[tuple[Floats, Floats]]
    cells: Cells

    @property
    def width(self) -> int:
        return len(self.mean)

    def survival(self, states: Floats) -> Floats:
        """States (n × width) → curves (n × len(GRID)); rows of a state that isn't there (NaN) come out as NaN."""
        found: Floats = (states - self.mean) / self.scale
        for weights, bias in self.layers[:-1]:
            found = np.maximum(found @ weights + bias, np.float32(0))
        weights, bias = self.layers[-1]
        return self.cells.survival(_softmax(found @ weights + bias))

    def arrays(self) -> dict[str, Floats]:
        """All of it, as it is saved."""
        cells = np.array([self.cells.first, self.cells.last], np.float32)
        named = {"mean": self.mean, "scale": self.scale, "cells": cells}
        for number, (weights, bias) in enumerate(self.layers):
            named |= {f"weights_{number}": weights, f"bias_{number}": bias}
        return named

    @classmethod
    def read(cls, folder: Path, num_layers: int, width: int) -> PooledNet:
        """Raises PredictorError on arrays that are no such network."""
        shapes: dict[str, tuple[int | None, ...]] = {"mean": (width,), "scale": (width,), "cells": (2,)}
        for number in range(num_layers):
            shapes |= {f"weights_{number}": (None, None), f"bias_{number}": (None,)}
        arrays = files.read_arrays(folder, shapes)
        first, last = (int(one) for one in arrays["cells"])
        layers = [(arrays[f"weights_{number}"], arrays[f"bias_{number}"]) for number in range(num_layers)]
        fits = 0 <= first <= last < len(GRID) and (arrays["scale"] > 0).all()
        if not (fits and _chained(width, layers, Cells(first, last).num_outputs)):
            raise PredictorError(f"{folder}: its arrays don't make a network. Train the predictor again.")
        return cls(arrays["mean"], arrays["scale"], layers, Cells(first, last))


def _chained(width: int, layers: Sequence[tuple[Floats, Floats]], num_outputs: int) -> bool:
    """Whether each layer takes what the one before gives, from the states to the outputs."""
    sizes = [width, *(len(bias) for _, bias in layers)]
    wanted = list(itertools.pairwise(sizes))
    return bool(layers) and [weights.shape for weights, _ in layers] == wanted and sizes[-1] == num_outputs


def _softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return chances
