"""Any Hugging Face causal model, run by our own loop or by `model.generate`. Loads torch when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lengthwise.engines.transformers.options import ModelOptions, RunOptions

if TYPE_CHECKING:
    from lengthwise.engines.transformers.open import open_engine

__all__ = ["ModelOptions", "RunOptions", "open_engine"]


def __getattr__(name: str) -> Any:
    if name == "open_engine":
        from lengthwise.engines.transformers.open import open_engine

        return open_engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
