"""Answers with their texts → what remains of one that is being written, and the base that it starts from."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lengthwise.errors import PredictorError, UsageError
from lengthwise.estimates import GRID, LengthEstimates
from lengthwise.learning.data import LengthData
from lengthwise.learning.labels import ANSWER, Target
from lengthwise.learning.scoring_remaining import written_samples
from lengthwise.learning.splits import Indices, folds, prompt_groups
from lengthwise.learning.training import TrainConfig, from_settings
from lengthwise.learning.training import train as train_kind
from lengthwise.predictors.remaining.fit import Answers, RemainingConfig, fit_remaining
from lengthwise.predictors.remaining.predictor import RemainingPredictor
from lengthwise.protocols import LengthPredictor

MIN_ANSWERS = 200  # with a text; fewer don't show how texts end


@dataclass(frozen=True)
class RemainingSettings(RemainingConfig):
    """What RemainingConfig has, and the kind of the base."""

    base: Literal["text", "constant"] = "text"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.base not in ("text", "constant"):
            raise ValueError(f"base is {self.base!r}; it must be text or constant.")


def train(data: LengthData, target: Target, config: TrainConfig) -> RemainingPredictor:
    """Raises UsageError on another target than one answer: a summary of several is not being written. PredictorError
    where there are too few texts."""
    from lengthwise.predictors.text.fit import learned_from

    started_s = time.perf_counter()
    settings = from_settings(RemainingSettings, config.settings)
    if target.name != ANSWER:
        raise UsageError(f"What remains is that of one answer; the target can't be {target.name}.")
    answers = _answers(data, config, settings)
    trees, residuals = fit_remaining(answers, config.seed, settings)
    base = _base(data, config, settings)
    provenance = learned_from(answers.requests, answers.is_censored, config.model, ANSWER, config.seed)
    card = {
        "data": data.name,
        "num_prompts": len(data),
        "num_answers": len(answers.texts),
        "train_s": round(time.perf_counter() - started_s, 1),
    }
    return RemainingPredictor(base, trees, residuals, provenance, card)


def _base(data: LengthData, config: TrainConfig, settings: RemainingSettings) -> LengthPredictor:
    return train_kind(settings.base, data, Target(ANSWER), replace(config, settings={}))


def _answers(data: LengthData, config: TrainConfig, settings: RemainingSettings) -> Answers:
    """All samples that have a text, with what a base says of them that has not learned from their prompts."""
    rows, samples, texts = written_samples(data)
    if len(rows) < MIN_ANSWERS:
        raise PredictorError(
            f"There are {len(rows)} answers with a text in {data.name}; at least {MIN_ANSWERS} are needed to learn "
            "what remains of one. Collect them with their texts (--keep-text)."
        )
    groups = prompt_groups(data.requests)
    base = _held_out_estimates(data, config, settings, groups)
    return Answers(
        [data.requests[row] for row in rows],
        texts,
        data.lengths[rows, samples],
        data.is_cut[rows, samples],
        base[rows],
        groups[rows],
    )


def _held_out_estimates(
    data: LengthData, config: TrainConfig, settings: RemainingSettings, groups: Indices
) -> LengthEstimates:
    curves = np.empty((len(data), len(GRID)), np.float32)
    for learned, held_out in folds(groups, settings.num_folds, config.seed):
        base = _base(data[learned], config, settings)
        curves[held_out] = base.predict(data[held_out].requests).survival
    return LengthEstimates.from_survival(curves)
