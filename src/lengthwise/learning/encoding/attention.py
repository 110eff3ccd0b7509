"""Attention in an exported graph: one operator (`Attention`, ONNX's operator set 23) in place of ten."""

from __future__ import annotations

from typing import Any

import torch

from lengthwise.learning.encoding.network import WantedChances

OPSET = 23
_BY_HEADS = [0, 2, 1, 3]  # rows × tokens × heads × width ↔ rows × heads × tokens × width


def fuse(model: WantedChances) -> None:
    """Let encoders that know PyTorch's attention call it; others keep theirs. Changes `model`, not what it says."""
    encoders: list[Any] = [network.encoder for network in model.networks]
    for encoder in encoders:
        if getattr(encoder, "_supports_sdpa", False):
            encoder.set_attn_implementation("sdpa")


def translations() -> dict[Any, Any]:
    """How PyTorch's attention is written, for `torch.onnx.export`."""
    return {torch.ops.aten.scaled_dot_product_attention.default: _attention}


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """With heads beside each other (rows × tokens × width), as linear layers write and read them: the transpositions
    here and those of the encoder cancel out. PyTorch's own translation keeps the latter, 6 % of a prompt's time."""
    from onnxscript import opset23

    assert dropout_p == 0, "what is exported does not learn"
    op: Any = opset23  # its annotations are for scripts, not for what is traced
    parts = [op.Reshape(op.Transpose(part, perm=_BY_HEADS), [0, 0, -1]) for part in (query, key, value)]
    heads = {"q_num_heads": query.shape[1], "kv_num_heads": key.shape[1]}
    found, *_ = op.Attention(*parts, attn_mask, is_causal=int(is_causal), scale=scale, **heads)
    return op.Transpose(op.Reshape(found, [0, 0, heads["q_num_heads"], -1]), perm=_BY_HEADS)
