"""The kinds of saved predictors, each loaded when it is needed: what reads JSON alone must not wait for torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True, slots=True)
class Kind:
    """Where the class of a kind is. It has `load(folder)`; with `needs_backbone` (it asks a language model, or looks
    into one) or `has_parts` (folders inside hold other predictors, which may need one) `load(folder, backbone)`."""

    module: str
    name: str
    needs_backbone: bool = False
    has_parts: bool = False

    def predictor_class(self) -> Any:
        return getattr(import_module(f"lengthwise.predictors.{self.module}"), self.name)


KINDS = {
    "calibrated": Kind("calibrated", "CalibratedPredictor", has_parts=True),
    "constant": Kind("constant", "ConstantPredictor"),
    "text": Kind("text", "TextPredictor"),
}
