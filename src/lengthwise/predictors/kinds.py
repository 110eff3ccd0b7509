"""The kinds of saved predictors, each loaded when it is needed: what reads JSON alone must not wait for torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True, slots=True)
class Kind:
    """Where the class of a kind is. It has `load(folder)`; with `needs_backbone` (it asks a language model, or looks
    into one) or `has_parts` (folders inside hold other predictors, which may need one) `load(folder, backbone)`.
    `needs_states`: a model that can only be asked (behind a server) won't do."""

    module: str
    name: str
    needs_backbone: bool = False
    has_parts: bool = False
    needs_states: bool = False

    def predictor_class(self) -> Any:
        return getattr(import_module(f"lengthwise.predictors.{self.module}"), self.name)


KINDS = {
    "calibrated": Kind("calibrated", "CalibratedPredictor", has_parts=True),
    "constant": Kind("constant", "ConstantPredictor"),
    "entropy": Kind("pooled.predictor", "PooledPredictor", needs_backbone=True, has_parts=True, needs_states=True),
    "pooling": Kind("pooled.predictor", "PooledPredictor", needs_backbone=True, has_parts=True, needs_states=True),
    "encoder": Kind("encoder.predictor", "EncoderPredictor"),
    "history": Kind("history.predictor", "HistoryPredictor", has_parts=True),
    "len": Kind("tuned.len_token", "LenPredictor", needs_backbone=True, needs_states=True),
    "lora": Kind("tuned.lora", "LoraPredictor", needs_backbone=True, needs_states=True),
    "pia": Kind("prompted.predictor", "PromptedPredictor", needs_backbone=True),
    "po": Kind("prompted.predictor", "PromptedPredictor", needs_backbone=True),
    "remaining": Kind("remaining.predictor", "RemainingPredictor", has_parts=True),
    "stack": Kind("stack.predictor", "StackPredictor", has_parts=True),
    "text": Kind("text.predictor", "TextPredictor"),
}
