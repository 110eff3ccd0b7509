"""Data → a history on top of another predictor: the data is replayed in its order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np
import sklearn

from lengthwise.errors import PredictorError
from lengthwise.estimates import Floats
from lengthwise.learning.data import LengthData
from lengthwise.learning.labels import Labels, Target, label
from lengthwise.learning.splits import Indices, folds
from lengthwise.learning.training import TrainConfig, check_kind, from_settings, needs_backbone, target_name
from lengthwise.learning.training import train as train_kind
from lengthwise.predictors.cold_start.cohort import Examples
from lengthwise.predictors.cold_start.trial import scores
from lengthwise.predictors.history.keys import LEVELS
from lengthwise.predictors.history.predictor import DEFAULT_WEIGHTS, HistoryPredictor, mixed
from lengthwise.predictors.history.store import HistoryStore
from lengthwise.predictors.provenance import Provenance, distinct_sampling
from lengthwise.protocols import LengthPredictor

WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 256.0, math.inf)

Past = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class HistoryConfig:
    """What the history stands on, and how its weights are chosen."""

    base: str = "text"  # a kind that is trained from data alone
    num_folds: int = 3  # the base that history is weighed against has not seen the answer: else it would seem too good
    min_repeats: int = 30  # examples with likes at a level, from which its weight is chosen

    def __post_init__(self) -> None:
        if self.base == "history" or needs_backbone(self.base):
            raise ValueError(f"base is {self.base!r}; it must be a kind that is trained from data alone.")
        if self.num_folds < 2 or self.min_repeats < 1:
            raise ValueError("num_folds must be 2 or more, min_repeats 1 or more.")


def train(data: LengthData, target: Target, config: TrainConfig) -> HistoryPredictor:
    """Each answer is foretold from those before it; each level gets the weight by which that is done best. Raises
    PredictorError where there is too little to learn from."""
    settings = from_settings(HistoryConfig, config.settings)
    check_kind(settings.base)
    labels = label(data, target)
    store, past = _replay(labels)
    weights = _chosen(past, _out_of_fold(data, labels, target, config, settings), labels, settings)
    base = train_kind(settings.base, data, target, replace(config, settings={}))
    learned_from = Provenance(
        model=config.model,
        num_examples=len(labels),
        num_censored=int(labels.is_censored.sum()),
        target=target_name(target, data),
        seed=config.seed,
        sampling=distinct_sampling(labels.requests),
        lengthwise_version=version("lengthwise"),
        sklearn_version=sklearn.__version__,
    )
    num_repeats = {level: sum(level in found for found in past) for level in LEVELS}
    card = {"data": data.name, "num_prompts": len(data), "base": settings.base, "num_repeats": num_repeats}
    return HistoryPredictor(
        base, weights=weights, store=store, model=config.model, learned_from=learned_from, card=card
    )


def _replay(labels: Labels) -> tuple[HistoryStore, list[Past]]:
    """The history after all answers, and what there was of each one's likes before it."""
    store = HistoryStore()
    past: list[Past] = []
    for request, length, is_censored in zip(labels.requests, labels.values, labels.is_censored, strict=True):
        past.append({level: list(lengths) for level, lengths in store.find(request).items()})
        store.add(request, float(length), bool(is_censored))
    return store, past


def _out_of_fold(
    data: LengthData, labels: Labels, target: Target, config: TrainConfig, settings: HistoryConfig
) -> Floats:
    """The base's curves for each label, by one that has not seen this row of the data. Others with the same prompt it
    may have seen, as it will have when it is used."""
    if len(data) < settings.num_folds:
        raise PredictorError(f"There are {len(data)} prompts; {settings.num_folds} are needed. Collect more.")
    curves: dict[int, Floats] = {}
    for seen, held_out in folds(np.arange(len(data)), settings.num_folds, config.seed):
        base = _base_of(data[seen], len(data), target, config, settings)
        survival = base.predict([data.requests[row] for row in held_out]).survival
        curves.update(zip(held_out.tolist(), survival, strict=True))
    return np.stack([curves[row] for row in labels.rows.tolist()])


def _base_of(
    seen: LengthData, num_rows: int, target: Target, config: TrainConfig, settings: HistoryConfig
) -> LengthPredictor:
    try:
        return train_kind(settings.base, seen, target, replace(config, settings={}))
    except PredictorError as error:
        raise PredictorError(
            f"{num_rows} rows are too few for a history: what it stands on learns from {len(seen)} of them at a time. "
            f'({error}) Give more, or set base = "constant" in the table [history] of --settings.'
        ) from error


def _chosen(past: Sequence[Past], curves: Floats, labels: Labels, settings: HistoryConfig) -> dict[str, float]:
    """The weight of each level, from general to special, each on top of those before."""
    weights, chosen = dict.fromkeys(LEVELS, math.inf), dict(DEFAULT_WEIGHTS)
    for level in LEVELS:
        rows = np.array([row for row, found in enumerate(past) if level in found], np.intp)
        if len(rows) >= settings.min_repeats:
            found = {weight: _loss(past, curves, labels, rows, {**weights, level: weight}) for weight in WEIGHTS}
            chosen[level] = min(found, key=found.__getitem__)
        weights[level] = chosen[level]
    return chosen


def _loss(past: Sequence[Past], curves: Floats, labels: Labels, rows: Indices, weights: Mapping[str, float]) -> float:
    foretold = np.stack([mixed(curves[row], past[row], weights) for row in rows])
    examples = Examples((), labels.values[rows], labels.is_censored[rows], rows)
    return float(scores(foretold, examples).mean())
