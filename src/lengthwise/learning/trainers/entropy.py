"""Data and a language model → a network on the model's states, weighed by how uncertain it is of each next token."""

from __future__ import annotations

from dataclasses import dataclass

from lengthwise.learning.data import LengthData
from lengthwise.learning.labels import Target
from lengthwise.learning.trainers.pooling import NetSettings, train_pooled
from lengthwise.learning.training import TrainConfig, from_settings
from lengthwise.predictors.pooled.predictor import PooledPredictor


@dataclass(frozen=True)
class EntropyConfig(NetSettings):
    """As for the mean, and nothing else."""


def train(data: LengthData, target: Target, config: TrainConfig) -> PooledPredictor:
    return train_pooled(data, target, config, from_settings(EntropyConfig, config.settings), "entropy")
