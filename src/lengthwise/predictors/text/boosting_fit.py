"""Growing the trees: regressions out of fold are what they learn from, as they will see those of new prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.linear_model import Ridge

from lengthwise.estimates import Floats
from lengthwise.predictors.residuals import Doubles
from lengthwise.predictors.text.boosting import Boosting, join_columns, log_of_root
from lengthwise.predictors.trees import grow_trees
from lengthwise.types import Request

Folds = list[tuple[NDArray[np.intp], NDArray[np.intp]]]


@dataclass(frozen=True)
class BoostingConfig:
    """How trees are grown. Chosen by cross-validation on Alpaca's training file; the values around these are as good
    (within 0.2 tokens of error)."""

    min_prompts: int = 500  # with fewer, the regression alone is as good
    num_thresholds: int = 12
    alpha: float = 0.7  # ridge penalty of the regressions
    num_trees: int = 150  # 300 at half the rate: 0.07 tokens less error, 8 µs a prompt more
    learning_rate: float = 0.06
    num_leaves: int = 15
    min_leaf_prompts: int = 40
    huber_delta: float = 2.0  # in roots of tokens: beyond it an error counts by its size, not by its square

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"{name} is {value}; it must be above 0.")


@dataclass(frozen=True)
class Prompts:
    """Distinct prompts: their bags (n × terms), requests, mean lengths and all that is to be foretold of them."""

    bags: csr_matrix
    requests: Sequence[Request]
    roots: Doubles  # mean square root of a prompt's lengths
    targets: Doubles  # n × h: what the regressions learn
    folds: Folds


def head_targets(lengths: Doubles, others: Doubles, config: BoostingConfig) -> Doubles:
    """What the regressions learn of each example: its length, whether it passes each of the thresholds, and the same
    of the other lengths that are known (n × k)."""
    columns = [*_length_columns(lengths, config.num_thresholds)]
    for other in others.T:
        columns += _length_columns(np.where(np.isnan(other), lengths, other), config.num_thresholds // 2)
    return np.stack(columns, axis=1)


def _length_columns(lengths: Doubles, num_thresholds: int) -> list[Doubles]:
    levels = (np.arange(num_thresholds) + 0.5) / max(num_thresholds, 1)
    thresholds = np.unique(np.quantile(lengths, levels))
    return [lengths**0.3, *((lengths >= threshold).astype(np.float64) for threshold in thresholds)]


def fit_boosting(prompts: Prompts, seed: int, config: BoostingConfig) -> tuple[Boosting, Doubles]:
    """The trees, and their predictions (log lengths) for each prompt by trees that have not seen it."""
    heads = np.empty(prompts.targets.shape)
    for train, held_out in prompts.folds:
        heads[held_out] = _heads(prompts, train, config).predict(prompts.bags[held_out])
    columns = join_columns(_float32(heads), prompts.requests)
    predicted = np.empty(len(columns))
    for train, held_out in prompts.folds:
        grown = _grow(columns[train], prompts.roots[train], seed, config)
        predicted[held_out] = log_of_root(grown.predict(columns[held_out], num_threads=1))
    model = _heads(prompts, np.arange(len(columns)), config)
    trees = _grow(columns, prompts.roots, seed, config).model_to_string()
    return Boosting(_float32(model.coef_.T), _float32(model.intercept_), trees), predicted


def _heads(prompts: Prompts, rows: NDArray[np.intp], config: BoostingConfig) -> Ridge:
    return Ridge(alpha=config.alpha, solver="sparse_cg", tol=1e-2).fit(prompts.bags[rows], prompts.targets[rows])


def _grow(columns: Floats, roots: Doubles, seed: int, config: BoostingConfig) -> Any:
    return grow_trees(
        columns,
        roots,
        config.num_trees,
        seed,
        objective="huber",
        alpha=config.huber_delta,
        learning_rate=config.learning_rate,
        num_leaves=config.num_leaves,
        min_data_in_leaf=config.min_leaf_prompts,
        feature_fraction=0.4,
        bagging_fraction=0.6,
    )


def _float32(values: Any) -> Floats:
    return np.ascontiguousarray(values, np.float32)
