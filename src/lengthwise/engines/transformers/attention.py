"""Attention of each row's newest token over the blocks of the cache.

Each block of keys is multiplied by the query of the row that owns it, all blocks at once and where they lie; the
blocks' partial sums are then added up row by row, as in flash decoding. Nothing is gathered but queries, so the
work is that of the tokens that are there, rounded up to blocks, however ragged the rows are. Plain tensor operations
do it on CPU, CUDA and MPS; on a CPU what most models ask for is done by a kernel (`attention_kernel`).

Rows that enter may bring their earlier tokens along in the same pass. Those attend in the same way, several queries
a row.

It is registered with transformers as the attention implementation `lengthwise_blocks`, and models reach it as they
reach any other (vLLM's transformers backend does the same). What a model hands over is honoured: `scaling`,
`sliding_window`, `softcap`, `s_aux` (attention sinks).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedConfig

from lengthwise.engines.transformers import attention_kernel
from lengthwise.engines.transformers.cache import BLOCK_TOKENS
from lengthwise.engines.transformers.pass_view import MASKED, BlockView, PassView

BLOCK_ATTENTION = "lengthwise_blocks"
_LOG2_E = math.log2(math.e)


_view: ContextVar[PassView] = ContextVar("pass_view")  # not an argument: some models pass none on


@contextmanager
def block_attention(config: PreTrainedConfig, view: PassView) -> Iterator[None]:
    """Within it the model of this text config attends by blocks, to what `view` says; outside it is as it was."""
    own = config._attn_implementation
    config._attn_implementation = BLOCK_ATTENTION
    token = _view.set(view)
    try:
        yield
    finally:
        config._attn_implementation = own
        _view.reset(token)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query: tokens × heads × 1 × size; key and value: blocks × key/value heads × BLOCK_TOKENS × size; s_aux: heads.
    Returns tokens × 1 × heads × size of a value. Softmax and sums are float32."""
    scaling = query.shape[3] ** -0.5 if scaling is None else scaling
    view = _view.get()
    view.windows_seen.add(sliding_window)
    is_plain = softcap is None and s_aux is None
    if is_plain and attention_kernel.can_attend(query, key, value):
        return attention_kernel.attend(query, key, value, view.pairs, scaling, sliding_window), None
    shape = _Shape(scaling, sliding_window, softcap, s_aux)
    if view.earlier is None:
        return shape.attend(query, key, value, view.newest), None
    earlier, device = view.earlier, query.device
    newest = shape.attend(query[: len(view.newest.position)], key, value, view.newest)
    padded = query[earlier.token.to(device), :, 0].transpose(1, 2)
    block = earlier.block.to(device)
    answer = shape.attend(padded, key[block], value[block], earlier.view)
    return torch.cat([newest, answer.flatten(0, 1)[earlier.place.to(device)].unsqueeze(1)]), None


class _Shape(NamedTuple):
    """What a layer asks of its attention."""

    scaling: float
    sliding_window: int | None
    softcap: float | None
    s_aux: Tensor | None

    def attend(self, query: Tensor, key: Tensor, value: Tensor, view: BlockView) -> Tensor:
        """query: rows × heads × tokens × size; returns rows × tokens × heads × size of a value."""
        row, (num_rows, num_heads, num_tokens, _) = view.row.to(query.device), query.shape
        scores = self._scores(query, key, row, view.bias(self.sliding_window, query.device))
        highest = _row_max(scores, row, num_rows)
        weights = scores.sub_(highest.index_select(0, row).view(*scores.shape[:3], 1)).exp2_()
        total = _row_sum(weights.sum(-1).flatten(1), row, num_rows).view(num_rows, num_heads, -1)
        if self.s_aux is not None:
            sinks = self.s_aux.float().unsqueeze(1) * _LOG2_E
            total += torch.exp2(sinks - highest.view(num_rows, num_heads, -1))
        mixed = torch.matmul(weights.to(value.dtype), value).float().flatten(1)
        answer = _row_sum(mixed, row, num_rows).view(num_rows, num_heads, num_tokens, -1) / total.unsqueeze(-1)
        return answer.to(query.dtype).transpose(1, 2)

    def _scores(self, query: Tensor, key: Tensor, row: Tensor, bias: Tensor) -> Tensor:
        """blocks × key/value heads × (heads that share them × tokens) × BLOCK_TOKENS, float32, in units of log 2.

        Powers of 2 instead of e: where half of the places are masked, torch's exp takes 2 ms on a CPU, exp2 0.05.
        """
        num_blocks, num_kv_heads, _, size = key.shape
        of_block = query.flatten(1).index_select(0, row).view(num_blocks, num_kv_heads, -1, size)
        scores = torch.matmul(of_block, key.transpose(2, 3)).float()
        scaling = self.scaling
        if self.softcap is not None:
            scores, scaling = scores.mul_(scaling / self.softcap).tanh_(), self.softcap
        of_heads = scores.view(num_blocks, -1, query.shape[2], BLOCK_TOKENS)
        torch.add(bias, of_heads, alpha=scaling * _LOG2_E, out=of_heads)
        return scores


def _row_max(scores: Tensor, row: Tensor, num_rows: int) -> Tensor:
    of_block = scores.amax(-1).flatten(1)
    highest = of_block.new_full((num_rows, of_block.shape[1]), MASKED)
    return highest.scatter_reduce_(0, row.unsqueeze(1).expand_as(of_block), of_block, "amax")


def _row_sum(of_block: Tensor, row: Tensor, num_rows: int) -> Tensor:
    return of_block.new_zeros(num_rows, of_block.shape[1]).index_add_(0, row, of_block)


AttentionInterface.register(BLOCK_ATTENTION, attend)
