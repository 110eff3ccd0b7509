"""Asking a model about prompts whose answers' lengths are known, and learning what its numbers are worth."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from lengthwise.errors import PredictorError, UsageError
from lengthwise.learning.data import LengthData
from lengthwise.learning.labels import Target, label
from lengthwise.learning.training import TrainConfig, from_settings, target_name
from lengthwise.predictors.prompted.lengths import StatedLengths
from lengthwise.predictors.prompted.predictor import MAX_NEW_TOKENS, PromptedPredictor
from lengthwise.predictors.prompted.question import Form

MIN_READ = 20  # prompts whose number was read; fewer say nothing of how numbers and lengths go together


@dataclass(frozen=True)
class PromptedConfig:
    """How it is learned what stated numbers are worth. Raises ValueError on a value out of range."""

    max_prompts: int = 500  # asked, drawn by the seed: a level of the spread needs 100, and asking is slow
    max_new_tokens: int = MAX_NEW_TOKENS
    num_folds: int = 5
    min_level_examples: int = 100  # a distribution of residuals needs about this many for its tenths
    max_levels: int = 10

    def __post_init__(self) -> None:
        limits = {"max_prompts": MIN_READ, "max_new_tokens": 1, "num_folds": 2, "min_level_examples": 1}
        for name, least in {**limits, "max_levels": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {least} or more.")


def train_prompted(form: Form, data: LengthData, target: Target, config: TrainConfig) -> PromptedPredictor:
    """Ask `config.backbone` about prompts of `data`, and learn from the lengths of their answers.

    Raises UsageError without a backbone, PredictorError where fewer than 20 of its answers can be read as numbers.
    """
    from lengthwise.predictors.text.fit import learned_from

    settings = from_settings(PromptedConfig, config.settings)
    if config.backbone is None:
        raise UsageError(f"A predictor of kind {form} asks a language model, and there is none: name it (--model).")
    started_s = time.perf_counter()
    rows = np.random.default_rng(config.seed).permutation(len(data))[: settings.max_prompts]
    asked = PromptedPredictor(config.backbone, form, max_new_tokens=settings.max_new_tokens)
    stated = asked.stated([data.requests[row] for row in rows])
    is_read = ~np.isnan(stated)
    if is_read.sum() < MIN_READ:
        raise PredictorError(
            f"Of {len(rows)} questions how long an answer would be, {config.backbone.model} answered "
            f"{is_read.sum()} with a number; {MIN_READ} are needed. This model can't be asked: use `train text`, or "
            "teach it (`train lora`)."
        )
    labels = label(data[rows[is_read]], target)
    learned = StatedLengths.fit(
        np.log(stated[is_read])[labels.rows],
        np.log(np.maximum(labels.values, 1)),
        labels.is_censored,
        labels.rows,
        num_folds=settings.num_folds,
        num_levels=min(settings.max_levels, max(1, len(labels) // settings.min_level_examples)),
        seed=config.seed,
    )
    return PromptedPredictor(
        config.backbone,
        form,
        learned=learned,
        learned_from=learned_from(
            labels.requests, labels.is_censored, config.backbone.model, target_name(target, data), config.seed
        ),
        card={
            "data": data.name,
            "num_asked": len(rows),
            "num_failed": int((~is_read).sum()),
            "train_s": round(time.perf_counter() - started_s, 1),
        },
        max_new_tokens=settings.max_new_tokens,
    )
