"""Data → what the numbers are worth that a model states of its own answers (Perception Only)."""

from __future__ import annotations

from lengthwise.learning.data import LengthData
from lengthwise.learning.labels import Target
from lengthwise.learning.prompting import train_prompted
from lengthwise.learning.training import TrainConfig
from lengthwise.predictors.prompted.predictor import PromptedPredictor


def train(data: LengthData, target: Target, config: TrainConfig) -> PromptedPredictor:
    """Raises PredictorError where too few answers can be read as numbers."""
    return train_prompted("po", data, target, config)
