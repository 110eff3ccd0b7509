"""Data → a fine-tuned encoder."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace

import numpy as np

from lengthwise.errors import PredictorError
from lengthwise.estimates import GRID, Floats
from lengthwise.learning.data import LengthData
from lengthwise.learning.encoding.config import EncoderConfig
from lengthwise.learning.labels import Target, label
from lengthwise.learning.splits import Indices
from lengthwise.learning.trainers.text import train as train_text
from lengthwise.learning.training import TrainConfig, from_settings, target_name
from lengthwise.predictors.encoder.curves import mixed
from lengthwise.predictors.encoder.predictor import EncoderPredictor, EncoderWeights
from lengthwise.predictors.survival import length_curve
from lengthwise.predictors.text.predictor import TextPredictor

log = logging.getLogger("lengthwise")

MIN_PROMPTS = 50  # below this a constant is as good


def train(data: LengthData, target: Target, config: TrainConfig) -> EncoderPredictor:
    """Raises UsageError where the encoder or a package is missing, PredictorError on fewer than 50 prompts."""
    from lengthwise.learning.encoding.course import Course
    from lengthwise.learning.encoding.export import check_can_export
    from lengthwise.learning.encoding.heads import heads_of
    from lengthwise.predictors.text.fit import learned_from

    settings = from_settings(EncoderConfig, config.settings)
    check_can_export()
    if len(data) < MIN_PROMPTS:
        raise PredictorError(f"{len(data)} prompts can't train an encoder; {MIN_PROMPTS} are needed. Give more.")
    started_s = time.perf_counter()
    course = Course.prepare(data.requests, heads_of(data, target), data.limit, settings, config.seed)
    companion = _Companion(data, target, config, settings.text_share)
    curves = course.curves(companion.mixed)
    model = course.model(np.arange(len(data)), f"one that is kept, on all {len(data):,} prompts")
    labels = label(data, target)
    weights = EncoderWeights(
        course.exported(model),
        course.encoder.tokenizer.to_str(),
        course.encoder.max_tokens,
        curves,
        length_curve(labels.values, labels.is_censored).reshape(1, len(GRID)),
        companion.learned_from(np.arange(len(data))),
        settings.text_share,
    )
    provenance = learned_from(labels.requests, labels.is_censored, config.model, target_name(target, data), config.seed)
    card = {"data": data.name, "num_prompts": len(data), "train_s": round(time.perf_counter() - started_s, 1)}
    return EncoderPredictor(weights, provenance, card)


@dataclass(frozen=True)
class _Companion:
    """The text predictor that has a share in what the encoder says."""

    data: LengthData
    target: Target
    config: TrainConfig
    share: float

    def learned_from(self, rows: Indices) -> TextPredictor | None:
        """One that learned from some prompts; None where it has no share, or finds too little to learn from."""
        if not self.share:
            return None
        try:
            return train_text(self.data[rows], self.target, replace(self.config, settings={}))
        except PredictorError as error:
            log.info("The encoder goes without the text predictor: %s", error)
            return None

    def mixed(self, survival: Floats, learned: Indices, held_out: Indices) -> Floats:
        """Curves of held-out prompts, with the share of a text predictor that has not seen them either."""
        text = self.learned_from(learned)
        if text is None:
            return survival
        return mixed(survival, text.predict(self.data[held_out].requests).survival, self.share)
