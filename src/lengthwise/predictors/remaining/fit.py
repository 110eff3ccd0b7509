"""Growing the trees that foretell what remains: from answers, looked at where they might have been cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lengthwise.estimates import Floats, LengthEstimates
from lengthwise.predictors.remaining.features import partial_features
from lengthwise.predictors.residuals import Doubles, ResidualTable
from lengthwise.predictors.trees import grow_trees
from lengthwise.types import Request

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class RemainingConfig:
    """Where answers are looked at, and how trees are grown. Raises ValueError on a value that can't work."""

    num_looks: int = 12  # at each answer, at places drawn evenly in log tokens
    first_look: int = 4  # tokens
    num_folds: int = 3
    num_trees: int = 200
    learning_rate: float = 0.05
    num_leaves: int = 15
    min_leaf_looks: int = 40
    max_levels: int = 10  # of the residuals' table
    min_level_looks: int = 200

    def __post_init__(self) -> None:
        for name in RemainingConfig.__dataclass_fields__:
            least = 1 if name == "num_folds" else 0
            if not getattr(self, name) > least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above {least}.")


@dataclass(frozen=True, eq=False)
class Answers:
    """m answers: requests, texts, lengths in tokens ("more than this" where censored), what the base said of each
    without having learned from it, and groups (all answers to prompts that are nearly the same have one)."""

    requests: Sequence[Request]
    texts: Sequence[str]
    lengths: Doubles
    is_censored: NDArray[np.bool_]
    base: LengthEstimates
    groups: Rows


@dataclass(frozen=True, eq=False)
class _Looks:
    columns: Floats
    log_remaining: Doubles
    is_censored: NDArray[np.bool_]
    folds: list[tuple[Rows, Rows]]


def fit_remaining(answers: Answers, seed: int, config: RemainingConfig) -> tuple[str, ResidualTable]:
    """LightGBM's text of the trees, and how far they err on answers that they have not seen. A censored answer's rest
    is taken for what is expected beyond it (Buckley and James), once."""
    looks = _look(answers, seed, config)
    predicted = _out_of_fold(looks, looks.log_remaining, seed, config)
    table = _table(looks, predicted, config)
    filled = looks.log_remaining
    if looks.is_censored.any():
        beyond = table.expected_above(predicted, filled - predicted)
        filled = np.where(looks.is_censored, predicted + beyond, filled)
        table = _table(looks, _out_of_fold(looks, filled, seed, config), config)
    return _grow(looks.columns, filled, seed, config).model_to_string(), table


def part_of(text: str, num_tokens: float, length: float) -> str:
    """The beginning of an answer's text that its first `num_tokens` of `length` tokens make, as near as can be told
    without its tokens."""
    return text[: round(len(text) * num_tokens / length)]


def _look(answers: Answers, seed: int, config: RemainingConfig) -> _Looks:
    from sklearn.model_selection import GroupKFold

    draw = np.random.default_rng(seed)
    rows = np.repeat(np.flatnonzero(answers.lengths > config.first_look), config.num_looks)
    lengths = answers.lengths[rows]
    log_span = np.log(lengths / config.first_look)
    num_tokens = np.floor(config.first_look * np.exp(draw.random(len(rows)) * log_span))
    num_tokens = np.minimum(num_tokens, lengths - 1)
    places = zip(rows.tolist(), num_tokens.tolist(), lengths.tolist(), strict=True)
    texts = [part_of(answers.texts[row], num, length) for row, num, length in places]
    columns = partial_features([answers.requests[row] for row in rows.tolist()], texts, num_tokens, answers.base[rows])
    splitter = GroupKFold(config.num_folds, shuffle=True, random_state=seed)
    folds = list(splitter.split(rows, groups=answers.groups[rows]))
    return _Looks(columns, np.log(lengths - num_tokens), answers.is_censored[rows], folds)


def _out_of_fold(looks: _Looks, targets: Doubles, seed: int, config: RemainingConfig) -> Doubles:
    predicted = np.empty(len(targets))
    for train, held_out in looks.folds:
        grown = _grow(looks.columns[train], targets[train], seed, config)
        predicted[held_out] = grown.predict(looks.columns[held_out], num_threads=1)
    return np.maximum(predicted, 0)


def _table(looks: _Looks, predicted: Doubles, config: RemainingConfig) -> ResidualTable:
    num_levels = min(max(len(predicted) // config.min_level_looks, 1), config.max_levels)
    return ResidualTable.fit(predicted, looks.log_remaining, looks.is_censored, num_levels)


def _grow(columns: Floats, targets: Doubles, seed: int, config: RemainingConfig) -> Any:
    return grow_trees(
        columns,
        targets,
        config.num_trees,
        seed,
        objective="regression",
        learning_rate=config.learning_rate,
        num_leaves=config.num_leaves,
        min_data_in_leaf=config.min_leaf_looks,
        feature_fraction=0.6,
        bagging_fraction=0.7,
    )
