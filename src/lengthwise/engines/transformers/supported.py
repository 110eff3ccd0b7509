"""Whether a model's cache can be held in blocks, found out by trying."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lengthwise.engines.transformers.engine import is_out_of_memory
from lengthwise.engines.transformers.forward import RowModel
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.engines.transformers.rows import Row
from lengthwise.errors import typed_line
from lengthwise.types import SamplingParams

_PROMPT_TOKENS = (9, 4, 1)  # ragged; 1 enters without being read
_RIDING = 64  # all of them
_KNOWN_LAYERS = {"full_attention", "sliding_attention"}

# How far logits may differ from those of a row alone without a cache, as a share of their spread. In float32 we saw
# 1e-6; a cache that is read wrongly, or padding that is read, gives about 1. Sixteen bits and fewer round at every
# layer, and may choose other experts.
_MAX_ERROR = 1e-3
_MAX_ERROR_LOW_PRECISION = 0.3


def why_unsupported(loaded: LoadedModel) -> str | None:
    """Why TransformersEngine can't run this model, as the end of a sentence that starts with "because"; None if it
    can. Compares a few tokens' logits, read by blocks, with those of the model's own forward pass without a cache:
    eight small passes. Raises the device's out-of-memory error."""
    config = loaded.model.config.get_text_config()
    if config.is_encoder_decoder:
        return "it has an encoder and a decoder"
    foreign = set(getattr(config, "layer_types", None) or ()) - _KNOWN_LAYERS
    if foreign:
        return f"it has layers of the kind {', '.join(sorted(foreign))}"
    if (limit := max_shared_rope_tokens(loaded)) < loaded.context_tokens:
        return f"a row of more than {limit:,.0f} tokens changes the rotary positions of all rows beside it"
    try:
        with torch.inference_mode():
            return _try(loaded, _expected_windows(config))
    except Exception as error:  # any: models refuse what they don't know in many ways
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        return f"it does not take a cache by blocks ({typed_line(error)[:200]})"


def max_shared_rope_tokens(loaded: LoadedModel) -> float:
    """Up to how many tokens rows may have, prompt and answer, to share a batch: inf for most models. Rotary positions
    of the kinds `longrope` and `dynamic` change for all rows when one of them is longer than the model was trained."""
    config = loaded.model.config.get_text_config()
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    of_kinds_of_layers = [value for value in rope.values() if isinstance(value, dict)]
    return min((_max_shared_tokens(config, each) for each in of_kinds_of_layers or [rope]), default=math.inf)


def _max_shared_tokens(config: Any, rope: dict[str, Any]) -> float:
    kind = rope.get("rope_type") or ""
    if kind != "longrope" and "dynamic" not in kind:
        return math.inf
    trained = rope.get("original_max_position_embeddings") if kind == "longrope" else None
    return float(trained or config.max_position_embeddings)


def _try(loaded: LoadedModel, windows: set[int | None]) -> str | None:
    """With prompts that ride along with a step, and with prompts that have a pass of their own."""
    expected: list[Tensor] = []
    for riding_tokens in (_RIDING, 0):
        rows = _rows(loaded.model.config.get_text_config().vocab_size)
        model = RowModel(loaded, len(rows), max_read_tokens=64, max_padding_tokens=64, max_riding_tokens=riding_tokens)
        model.read(rows)
        model.step(rows)
        for row in rows:
            row.tokens.append(row.prompt[0])
        found = model.step(rows)
        if model.last_view is None or not windows <= model.last_view.windows_seen:
            return "its layers do not use the attention that they are given"
        expected = expected or [_without_cache(loaded, row) for row in rows]
        for logits, own in zip(found, expected, strict=True):
            error = relative_error(logits, own)
            if not error <= max_error(loaded):  # a NaN, too
                return f"its output by blocks differs from its own by {error:.2g} of the logits' spread"
    return None


def _rows(vocabulary_size: int) -> list[Row]:
    """Prompts of tokens from all over the vocabulary."""
    draw = torch.Generator().manual_seed(0)
    prompts = [torch.randint(vocabulary_size, (num,), generator=draw).tolist() for num in _PROMPT_TOKENS]
    return [Row(str(i), SamplingParams(), prompt, [], 8, 8) for i, prompt in enumerate(prompts)]


def _without_cache(loaded: LoadedModel, row: Row) -> Tensor:
    ids = torch.tensor([row.prompt + row.tokens], device=loaded.device)
    logits: Tensor = loaded.model(input_ids=ids, use_cache=False).logits[0, -1]
    return logits


def max_error(loaded: LoadedModel) -> float:
    """The largest `relative_error` that rounding explains."""
    is_exact = loaded.model.dtype == torch.float32 and not getattr(loaded.model, "is_quantized", False)
    return _MAX_ERROR if is_exact else _MAX_ERROR_LOW_PRECISION


def relative_error(logits: Tensor, expected: Tensor) -> float:
    """The difference, as a share of the expected logits' spread."""
    return float((logits - expected).float().norm() / (expected.float() - expected.float().mean()).norm())


def _expected_windows(config: object) -> set[int | None]:
    """The windows that the configuration speaks of; a model whose layers ask for others attends wrongly."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        return {window}
    return {window if kind == "sliding_attention" else None for kind in kinds}
