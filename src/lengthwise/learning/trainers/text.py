"""Data → the text predictor."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from lengthwise.learning.data import LengthData, Lengths
from lengthwise.learning.labels import ANSWER, Labels, Target, label
from lengthwise.learning.training import TrainConfig, from_settings, target_name
from lengthwise.predictors.text.predictor import TextConfig, TextPredictor


def train(data: LengthData, target: Target, config: TrainConfig) -> TextPredictor:
    """Raises PredictorError where there is too little to learn from."""
    started_s = time.perf_counter()
    labels = label(data, target)
    predictor = TextPredictor.fit(
        labels.requests,
        labels.values,
        labels.is_censored,
        others=_others(data, labels, target),
        model=config.model,
        target=target_name(target, data),
        seed=config.seed,
        config=from_settings(TextConfig, config.settings),
    )
    predictor.card = {"data": data.name, "num_prompts": len(data), "train_s": round(time.perf_counter() - started_s, 1)}
    return predictor


def _others(data: LengthData, labels: Labels, target: Target) -> Lengths:
    """What else is known of each label's prompt: a reference answer's length, and the mean of the samples, where the
    label is another summary of them."""
    columns: list[Any] = [] if data.reference is None else [data.reference]
    if target.name not in (ANSWER, "mean") and data.num_samples > 1:
        columns.append(np.nanmean(data.lengths, axis=1))
    return np.stack([column[labels.rows] for column in columns], axis=1) if columns else np.empty((len(labels), 0))
