"""Data and a language model → a LoRA adapter with which the model says how long its answers are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lengthwise.errors import PredictorError
from lengthwise.learning.data import LengthData
from lengthwise.learning.labels import Target
from lengthwise.learning.training import TrainConfig
from lengthwise.learning.tuning.adapters import files_of, tuned_modules, with_new_adapter
from lengthwise.learning.tuning.config import LoraConfig
from lengthwise.learning.tuning.fitting import fit, seeded, trained_in
from lengthwise.learning.tuning.numbers import NumberModule, collate, pairs
from lengthwise.learning.tuning.session import Session
from lengthwise.predictors.prompted.lengths import StatedLengths
from lengthwise.predictors.prompted.predictor import PromptedPredictor
from lengthwise.predictors.prompted.question import question_about
from lengthwise.predictors.tuned.adapter_files import AdapterFiles
from lengthwise.predictors.tuned.lora import LoraPredictor

TASK = "Asked how many tokens its answer to a prompt would have, the model says the number."
NUM_FOLDS = 5
LABELS_PER_LEVEL = 100  # a distribution of residuals needs about this many for its tenths
MAX_LEVELS = 10


def train(data: LengthData, target: Target, config: TrainConfig) -> LoraPredictor:
    """Raises UsageError without a model, PredictorError where it can't be tuned, on too few prompts, or where it says
    no numbers afterwards."""
    session = Session.begin(data, target, config, LoraConfig)
    with seeded(config.seed):
        tuned = _tune(session)
    adapter, modules = files_of(tuned, session.loaded), tuned_modules(tuned)
    learned = _learned(session, adapter)
    settings = session.settings
    predictor = LoraPredictor(session.backbone, adapter, learned, session.learned_from, settings.max_new_tokens)
    session.end(predictor, TASK, modules)
    return predictor


def _tune(session: Session[LoraConfig]) -> Any:
    loaded, settings, learned = session.loaded, session.settings, session.learned
    tuned = with_new_adapter(loaded, settings)
    asked = replace(learned, requests=tuple(question_about(request, "po") for request in learned.requests))
    groups = [{"params": trained_in(tuned), "lr": session.rate}]
    fit(NumberModule(tuned), pairs(asked, loaded, settings), collate, groups, settings, session.config)
    return tuned


def _learned(session: Session[LoraConfig], adapter: AdapterFiles) -> StatedLengths:
    """What the numbers are worth that it says of held-out prompts."""
    held_out, max_new_tokens = session.held_out, session.settings.max_new_tokens
    asked = PromptedPredictor(adapter.on(session.backbone), "po", max_new_tokens=max_new_tokens)
    stated = asked.stated(held_out.requests)
    rows, lengths, is_censored = held_out.each()
    is_read = np.isfinite(stated[rows])
    if len(np.unique(rows[is_read])) < NUM_FOLDS:
        raise PredictorError(
            f"Of {len(held_out)} held-out prompts the tuned model says a number for {np.isfinite(stated).sum()}: tune "
            "it longer (epochs), at a higher learning_rate, or on more prompts."
        )
    _, prompts = np.unique(rows[is_read], return_inverse=True)
    return StatedLengths.fit(
        np.log(stated[rows[is_read]]),
        np.log(lengths[is_read]),
        is_censored[is_read],
        prompts,
        num_folds=NUM_FOLDS,
        num_levels=int(np.clip(is_read.sum() // LABELS_PER_LEVEL, 1, MAX_LEVELS)),
        seed=session.config.seed,
    )
