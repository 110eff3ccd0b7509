"""Data → a trained predictor of a kind, with what it learned from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeVar

from lengthwise.errors import UsageError
from lengthwise.learning.data import LengthData
from lengthwise.learning.labels import ANSWER, Target
from lengthwise.predictors.kinds import KINDS
from lengthwise.predictors.saved import needs_backbone as asks
from lengthwise.protocols import Backbone, LengthPredictor

# Kind → the module of `learning.trainers` whose `train` makes one, imported when it is asked for.
TRAINERS = {
    "constant": "constant",
    "encoder": "encoder",
    "entropy": "entropy",
    "history": "history",
    "len": "len_token",
    "lora": "lora",
    "pia": "pia",
    "po": "po",
    "pooling": "pooling",
    "remaining": "remaining",
    "stack": "stack",
    "text": "text",
}

Config = TypeVar("Config")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How to train. `model`: identity of the model whose answers they are (None: they hold for any). `backbone`: the
    language model that some kinds ask or look into. `settings`: the kind's own, by the names of its configuration
    class. `report_to`: where a training log goes (`tensorboard`, `wandb`), `log_folder` under which folder."""

    seed: int = 0
    model: str | None = None
    backbone: Backbone | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    report_to: str | None = None
    log_folder: str | None = None


def train(kind: str, data: LengthData, target: Target, config: TrainConfig | None = None) -> LengthPredictor:
    """A predictor of `kind` that learned `target` from all of `data`.

    Raises UsageError on an unknown kind or setting, PredictorError where there is too little to learn from.
    """
    check_kind(kind)
    trainer = import_module(f"lengthwise.learning.trainers.{TRAINERS[kind]}")
    predictor: LengthPredictor = trainer.train(data, target, config or TrainConfig())
    return predictor


def check_kind(kind: str) -> None:
    if kind not in TRAINERS:
        raise UsageError(f"There is no predictor of kind {kind!r} to train; it is one of {', '.join(TRAINERS)}.")


def needs_backbone(kind: str, settings: Mapping[str, Any] | None = None) -> bool:
    """Whether `TrainConfig.backbone` must be there: for the kind, or for a base or a part that its settings name."""
    named = settings or {}
    is_asking = kind in KINDS and KINDS[kind].needs_backbone
    return is_asking or any(map(needs_backbone, named.get("parts", ()))) or any(map(asks, named.get("bases", ())))


def from_settings(config_class: type[Config], settings: Mapping[str, Any]) -> Config:
    """A kind's configuration from settings by name. Raises UsageError on a name that it doesn't have, or a value that
    it refuses."""
    known = getattr(config_class, "__dataclass_fields__", {})
    for name in settings:
        if name not in known:
            has = f"there are {', '.join(sorted(known))}" if known else "this kind has none"
            raise UsageError(f"There is no setting {name!r}; {has}.")
    try:
        return config_class(**settings)
    except (TypeError, ValueError) as error:
        raise UsageError(f"The settings can't be used: {error}") from error


def target_name(target: Target, data: LengthData) -> str:
    """As it stands in a saved predictor: `answer`, `max-of-4`."""
    return target.name if target.name == ANSWER else f"{target.name}-of-{data.num_samples}"


def target_of(predictor: LengthPredictor) -> Target:
    """What a predictor learned; one answer where it doesn't say."""
    inner = getattr(predictor, "inner", predictor)
    learned_from = getattr(inner, "learned_from", None)
    return Target(learned_from.target.split("-of-")[0] if learned_from else ANSWER)
