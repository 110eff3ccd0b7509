"""Data → a stack of predictors: trained ones that are adapted, parts that are trained here, or both."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lengthwise.errors import PredictorError, UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.learning.data import LengthData
from lengthwise.learning.labels import Target, label
from lengthwise.learning.seen import digests_of, remembered
from lengthwise.learning.splits import Indices, folds, prompt_groups
from lengthwise.learning.training import TRAINERS, TrainConfig, from_settings, target_name
from lengthwise.learning.training import train as train_kind
from lengthwise.predictors.saved import load_predictor
from lengthwise.predictors.stack.fit import Answers, ShrinkConfig, fit_stack
from lengthwise.predictors.stack.predictor import StackPredictor
from lengthwise.predictors.text.fit import learned_from
from lengthwise.protocols import LengthPredictor

log = logging.getLogger("lengthwise")

KIND = "stack"
Folds = Sequence[tuple[Indices, Indices]]


@dataclass(frozen=True)
class StackConfig(ShrinkConfig):
    """What is put together, and how. `bases`: folders of trained predictors that have not seen these prompts. `parts`:
    kinds to train on them; what a part says of a prompt is then learned from one that has not seen it, so each is
    trained `num_folds` times more. `part_settings`: settings of a part, by its kind."""

    bases: Sequence[str] = ()
    parts: Sequence[str] = ()
    num_folds: int = 5
    part_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_folds < 2:
            raise ValueError(f"num_folds is {self.num_folds}; it must be 2 or more.")
        for part in self.parts:
            if part not in TRAINERS or part == KIND:
                known = ", ".join(kind for kind in TRAINERS if kind != KIND)
                raise ValueError(f"{part!r} can't be a part of a stack; it must be one of {known}")


def train(data: LengthData, target: Target, config: TrainConfig) -> StackPredictor:
    """Raises UsageError where there is nothing to put together, PredictorError on a base that can't be read, and where
    there is too little to learn from."""
    started_s = time.perf_counter()
    settings = from_settings(StackConfig, config.settings)
    if not settings.bases and not settings.parts:
        raise UsageError("A stack needs predictors: --base DIR for trained ones, --parts text,... to train some here.")
    bases = [load_predictor(base, config.backbone) for base in settings.bases]
    predictor = put_together(bases, unseen(data, settings.bases), target, config, settings)
    predictor.card["bases"] = [Path(base).name for base in settings.bases]
    predictor.card["train_s"] = round(time.perf_counter() - started_s, 1)
    return predictor


def put_together(
    bases: Sequence[LengthPredictor], data: LengthData, target: Target, config: TrainConfig, settings: StackConfig
) -> StackPredictor:
    """`bases`, which have not seen `data`, and the parts that `settings` name."""
    groups = prompt_groups(data.requests)
    split = _folds(groups, settings.num_folds, config.seed)
    parts = list(_parts(data, target, config, settings, split, is_needed=not bases))
    estimates = [*(base.predict(data.requests) for base in bases), *(part.said for part in parts)]
    labels = label(data, target)
    answers = Answers(labels.values, labels.is_censored, labels.rows)
    weights = fit_stack(estimates, data.requests, answers, split, settings)
    provenance = learned_from(labels.requests, labels.is_censored, config.model, target_name(target, data), config.seed)
    card = {
        "data": data.name,
        "num_prompts": len(data),
        "parts": [part.kind for part in parts],
    }
    return StackPredictor([*bases, *(part.trained for part in parts)], weights, provenance, card)


def unseen(data: LengthData, bases: Sequence[str]) -> LengthData:
    """The rows that no base has learned from: what it says of those is better than what it will say of others."""
    is_seen = np.zeros(len(data), bool)
    for base in bases:
        digests = remembered(Path(base))
        if digests is None:
            log.warning(
                "%s doesn't say what it learned from: that these prompts are none of it is taken for granted.", base
            )
            continue
        is_seen |= np.array([bool(digests_of([request]) & digests) for request in data.requests])
    if is_seen.all():
        raise PredictorError(
            f"The bases have learned from all {len(data):,} prompts of {data.name}; give other data, or train the "
            "bases here as --parts."
        )
    if is_seen.any():
        log.warning("%d of %d prompts were learned from by a base, and are left out.", is_seen.sum(), len(data))
    return data[~is_seen]


def _folds(groups: Indices, num_folds: int, seed: int) -> Folds:
    num_different = int(groups.max()) + 1
    if num_different < num_folds:
        raise PredictorError(f"{num_different} different prompts can't be put into {num_folds} folds; give more.")
    return folds(groups, num_folds, seed)


@dataclass(frozen=True)
class _Part:
    """A part trained on all rows, and what parts that have not seen them say of each."""

    kind: str
    trained: LengthPredictor
    said: LengthEstimates


def _parts(
    data: LengthData, target: Target, config: TrainConfig, settings: StackConfig, split: Folds, is_needed: bool
) -> Iterator[_Part]:
    """A part that finds too little to learn from is left out, unless it is needed."""
    for kind in settings.parts:
        own = replace(config, settings=settings.part_settings.get(kind, {}))
        try:
            yield _part(kind, data, target, own, split)
        except PredictorError as error:
            if is_needed:
                raise
            log.warning("The part %s is left out: %s", kind, error)


def _part(kind: str, data: LengthData, target: Target, config: TrainConfig, split: Folds) -> _Part:
    said = [train_kind(kind, data[train], target, config).predict(data[out].requests) for train, out in split]
    order = np.argsort(np.concatenate([out for _, out in split]))
    return _Part(kind, train_kind(kind, data, target, config), LengthEstimates.concatenate(said)[order])
