"""Data and a language model → a network on the model's pooled states."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lengthwise.errors import PredictorError, UsageError
from lengthwise.estimates import Floats, LengthEstimates
from lengthwise.learning.data import LengthData
from lengthwise.learning.labels import Target, label
from lengthwise.learning.splits import split
from lengthwise.learning.training import TrainConfig, from_settings, target_name
from lengthwise.learning.training import train as train_kind
from lengthwise.predictors.correction import levels, opened
from lengthwise.predictors.pooled.net import Examples, NetConfig, PooledNet
from lengthwise.predictors.pooled.predictor import PooledPredictor
from lengthwise.protocols import LengthPredictor, Pooling

MIN_PROMPTS = 50  # below this a network learns nothing that a constant doesn't know


@dataclass(frozen=True)
class NetSettings(NetConfig):
    """What all kinds of pooling have in common."""

    held_out_share: float = 0.15  # of the prompts: they say when to stop, and how sure the network may be
    base: Literal["none", "text"] = "none"  # what is known of a prompt that the engine has not read yet

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.held_out_share < 1:
            raise ValueError(f"held_out_share is {self.held_out_share}; it must lie between 0 and 1.")
        if self.base not in ("none", "text"):
            raise ValueError(f"base is {self.base!r}; it must be none or text.")


@dataclass(frozen=True)
class PoolingConfig(NetSettings):
    """The paper's pools the mean."""

    pooling: Literal["mean", "last"] = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling not in ("mean", "last"):
            raise ValueError(f"pooling is {self.pooling!r}; it must be mean or last (`entropy` is a kind of its own).")


def train(data: LengthData, target: Target, config: TrainConfig) -> PooledPredictor:
    settings = from_settings(PoolingConfig, config.settings)
    return train_pooled(data, target, config, settings, settings.pooling)


def train_pooled(
    data: LengthData, target: Target, config: TrainConfig, settings: NetSettings, pooling: Pooling
) -> PooledPredictor:
    """Reads each prompt once, then trains on what came out. Raises UsageError without a backbone, PredictorError where
    there is too little to learn from."""
    from lengthwise.predictors.survival import length_curve
    from lengthwise.predictors.text.fit import learned_from

    started_s = time.perf_counter()
    if config.backbone is None:
        raise UsageError("Pooling looks into a language model, and there is none; name it (--model).")
    states = config.backbone.states(data.requests, pooling)
    read_s = time.perf_counter() - started_s
    net, worth, num_epochs = _fit(data, states, target, config.seed, settings)
    labels = label(data, target)
    provenance = learned_from(labels.requests, labels.is_censored, config.model, target_name(target, data), config.seed)
    base = _base(data, target, config, settings)
    card = {
        "data": data.name,
        "num_prompts": len(data),
        "num_epochs": num_epochs,
        "read_s": round(read_s, 1),
        "train_s": round(time.perf_counter() - started_s, 1),
    }
    marginal = length_curve(labels.values, labels.is_censored)[None]
    return PooledPredictor(net, worth, marginal, pooling, config.backbone, provenance, base, card)


def _fit(
    data: LengthData, states: Floats, target: Target, seed: int, settings: NetSettings
) -> tuple[PooledNet, tuple[Floats, Floats], int]:
    """The network, what its chances are worth on held-out prompts, and its epochs."""
    from lengthwise.predictors.pooled.fit import fit_net

    read = np.flatnonzero(np.isfinite(states).all(axis=1))
    if len(read) < MIN_PROMPTS:
        raise PredictorError(
            f"The model could read {len(read)} of {len(data)} prompts; a network on its states needs at least "
            f"{MIN_PROMPTS}. Collect more, or use the constant predictor."
        )
    data, states = data[read], states[read]
    learned, held_out = (_examples(data, states, target, rows) for rows in split(data, settings.held_out_share, seed))
    net, num_epochs = fit_net(learned, held_out, seed, settings)
    stated = opened(LengthEstimates.from_survival(net.survival(held_out.states)))
    return net, levels(stated, held_out.lengths, held_out.is_censored), num_epochs


def _examples(data: LengthData, states: Floats, target: Target, rows: NDArray[np.intp]) -> Examples:
    labels = label(data[rows], target)
    return Examples(states[rows][labels.rows], labels.values, labels.is_censored)


def _base(data: LengthData, target: Target, config: TrainConfig, settings: NetSettings) -> LengthPredictor | None:
    if settings.base == "none":
        return None
    return train_kind(settings.base, data, target, replace(config, settings={}))
