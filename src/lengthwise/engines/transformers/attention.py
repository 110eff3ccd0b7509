"""Attention of one new token a row over the blocks of the cache, in plain tensor operations.

Each block of keys is multiplied by the query of the row that owns it, all blocks at once and where they lie; the
blocks' partial sums are then added up row by row, as in flash decoding. Nothing is gathered but queries, so the
work is that of the tokens that are there, rounded up to blocks, however ragged the rows are. The same code runs on
CPU, CUDA and MPS.

It is registered with transformers as the attention implementation `lengthwise_blocks`, and models reach it as they
reach any other (vLLM's transformers backend does the same). What a model hands over is honoured: `scaling`,
`sliding_window`, `softcap`, `s_aux` (attention sinks).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from lengthwise.engines.transformers.cache import BLOCK_TOKENS

BLOCK_ATTENTION = "lengthwise_blocks"
_LOG2_E = math.log2(math.e)
_MASKED = -1e30  # finite, so that a block that is masked as a whole gives zeros and not NaN


@dataclass(frozen=True)
class BlockView:
    """What a step reads. `row` (long, blocks): the batch row that owns the block, any for a free one. `start` (long,
    blocks): the position of the block's first key in its row, far beyond all for a free one. `position` (long,
    rows): where each row's new token stands."""

    row: Tensor
    start: Tensor
    position: Tensor
    _bias: dict[tuple[int | None, torch.device], Tensor] = field(default_factory=dict)

    @cached_property
    def _places(self) -> Tensor:
        return torch.arange(BLOCK_TOKENS, device=self.row.device)

    @property
    def windows_seen(self) -> set[int | None]:
        """The sliding windows that layers have asked for so far; None is full attention."""
        return {window for window, _ in self._bias}

    def bias(self, sliding_window: int | None, device: torch.device) -> Tensor:
        """0 where a key is seen, hugely negative elsewhere: float32, blocks × 1 × 1 × BLOCK_TOKENS."""
        known = self._bias.get((sliding_window, device))
        if known is None:
            known = self._bias[sliding_window, device] = self._make_bias(sliding_window).to(device)
        return known

    def _make_bias(self, sliding_window: int | None) -> Tensor:
        distance = (self.position[self.row] - self.start).unsqueeze(1) - self._places
        is_seen = distance >= 0
        if sliding_window is not None:
            is_seen &= distance < sliding_window
        return torch.where(is_seen, 0.0, _MASKED)[:, None, None]


_view: ContextVar[BlockView] = ContextVar("block_view")  # not an argument: some models pass none on


@contextmanager
def block_attention(model: PreTrainedModel, view: BlockView) -> Iterator[None]:
    """Within it the model attends by blocks, to what `view` says; outside it is as it was."""
    config = model.config.get_text_config()
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
    """query: rows × heads × 1 × size; key and value: blocks × key/value heads × BLOCK_TOKENS × size; s_aux: heads.
    Returns rows × 1 × heads × size of a value. Softmax and sums are float32."""
    view, (num_rows, num_heads, _, size) = _view.get(), query.shape
    row = view.row.to(query.device)
    bias = view.bias(sliding_window, query.device)
    scores = _scores(query, key, row, bias, size**-0.5 if scaling is None else scaling, softcap)
    highest = _row_max(scores, row, num_rows)
    weights = scores.sub_(highest[row].view(*scores.shape[:3], 1)).exp2_()
    total = _row_sum(weights.sum(-1).view(-1, num_heads), row, num_rows)
    if s_aux is not None:
        total += torch.exp2(s_aux.float() * _LOG2_E - highest)
    mixed = torch.matmul(weights.to(value.dtype), value).float().view(len(row), -1)
    answer = _row_sum(mixed, row, num_rows).view(num_rows, num_heads, -1) / total.unsqueeze(-1)
    return answer.to(query.dtype).unsqueeze(1), None


def _scores(query: Tensor, key: Tensor, row: Tensor, bias: Tensor, scaling: float, softcap: float | None) -> Tensor:
    """blocks × key/value heads × heads that share them × BLOCK_TOKENS, float32, in units of log 2.

    Powers of 2 instead of e: where half of the places are masked, torch's exp takes 2 ms on a CPU, exp2 0.05.
    """
    num_blocks, num_kv_heads, _, size = key.shape
    of_block = query.flatten(1)[row].view(num_blocks, num_kv_heads, -1, size)
    scores = torch.matmul(of_block, key.transpose(2, 3)).float()
    if softcap is not None:
        scores, scaling = scores.mul_(scaling / softcap).tanh_(), softcap
    return torch.add(bias, scores, alpha=scaling * _LOG2_E, out=scores)


def _row_max(scores: Tensor, row: Tensor, num_rows: int) -> Tensor:
    of_block = scores.amax(-1).flatten(1)
    highest = of_block.new_full((num_rows, of_block.shape[1]), _MASKED)
    return highest.scatter_reduce_(0, row.unsqueeze(1).expand_as(of_block), of_block, "amax")


def _row_sum(of_block: Tensor, row: Tensor, num_rows: int) -> Tensor:
    return of_block.new_zeros(num_rows, of_block.shape[1]).index_add_(0, row, of_block)


AttentionInterface.register(BLOCK_ATTENTION, attend)
