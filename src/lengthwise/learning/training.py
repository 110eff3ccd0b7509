"""Data → a trained predictor of a kind, with what it learned from."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from lengthwise.errors import UsageError
from lengthwise.learning.data import LengthData, Lengths
from lengthwise.learning.labels import ANSWER, Labels, Target, label
from lengthwise.protocols import LengthPredictor

KINDS = ("text", "constant")


def train(kind: str, data: LengthData, target: Target, seed: int = 0, model: str | None = None) -> LengthPredictor:
    """A predictor of `kind` that learned `target` from all of `data`. `model`: whose answers they are (None: any).

    Raises UsageError on an unknown kind, PredictorError where there is too little to learn from.
    """
    if kind not in KINDS:
        raise UsageError(f"There is no predictor of kind {kind!r}; it is one of {', '.join(KINDS)}.")
    labels = label(data, target)
    if kind == "constant":
        from lengthwise.predictors.constant import ConstantPredictor

        return ConstantPredictor.fit(labels.values, labels.is_censored, model=model)
    return _train_text(data, labels, target, seed, model)


def _train_text(data: LengthData, labels: Labels, target: Target, seed: int, model: str | None) -> LengthPredictor:
    from lengthwise.predictors.text import TextPredictor

    started_s = time.perf_counter()
    predictor = TextPredictor.fit(
        labels.requests,
        labels.values,
        labels.is_censored,
        others=_others(data, labels, target),
        model=model,
        target=target_name(target, data),
        seed=seed,
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


def target_name(target: Target, data: LengthData) -> str:
    """As it stands in a saved predictor: `answer`, `max-of-4`."""
    return target.name if target.name == ANSWER else f"{target.name}-of-{data.num_samples}"


def target_of(predictor: LengthPredictor) -> Target:
    """What a predictor learned; one answer where it doesn't say."""
    inner = getattr(predictor, "inner", predictor)
    learned_from = getattr(inner, "learned_from", None)
    return Target(learned_from.target.split("-of-")[0] if learned_from else ANSWER)
