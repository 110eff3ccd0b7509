"""Data → the distribution of its lengths, the same for every request."""

from __future__ import annotations

from lengthwise.learning.data import LengthData
from lengthwise.learning.labels import Target, label
from lengthwise.learning.training import TrainConfig, from_settings
from lengthwise.predictors.constant import ConstantPredictor


class _NoSettings:
    """A constant has nothing to set."""


def train(data: LengthData, target: Target, config: TrainConfig) -> ConstantPredictor:
    from_settings(_NoSettings, config.settings)
    labels = label(data, target)
    return ConstantPredictor.fit(labels.values, labels.is_censored, model=config.model)
