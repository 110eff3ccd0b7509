"""Any server with OpenAI's API: chat and completions over HTTP, many at once, with retries. Loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lengthwise.engines.openai.options import ServerOptions

if TYPE_CHECKING:
    from lengthwise.engines.openai.open import open_openai

__all__ = ["ServerOptions", "open_openai"]


def __getattr__(name: str) -> Any:
    if name == "open_openai":
        from lengthwise.engines.openai.open import open_openai

        return open_openai
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
