"""Know how long a language model's answer will be before it is written, and schedule for it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lengthwise.errors import (
    EngineError,
    InputError,
    JobError,
    LengthwiseError,
    ModelError,
    PredictorError,
    RequestError,
    UsageError,
)
from lengthwise.types import Completion, Request, SamplingParams

if TYPE_CHECKING:
    from lengthwise.estimates import LengthEstimates
    from lengthwise.pipeline import Pipeline

    __version__: str

__all__ = [
    "Completion",
    "EngineError",
    "InputError",
    "JobError",
    "LengthEstimates",
    "LengthwiseError",
    "ModelError",
    "Pipeline",
    "PredictorError",
    "Request",
    "RequestError",
    "SamplingParams",
    "UsageError",
]

_LAZY = {  # heavy parts load when they are used: the command has its signal handler before numpy
    "LengthEstimates": "lengthwise.estimates",
    "Pipeline": "lengthwise.pipeline",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("lengthwise")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'lengthwise' has no attribute {name!r}")
