"""Attention of each row's newest token over the blocks of the cache, in plain tensor operations.

Each block of keys is multiplied by the query of the row that owns it, all blocks at once and where they lie; the
blocks' partial sums are then added up row by row, as in flash decoding. Nothing is gathered but queries, so the
work is that of the tokens that are there, rounded up to blocks, however ragged the rows are. The same code runs on
CPU, CUDA and MPS.

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
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedConfig

from lengthwise.engines.transformers.cache import BLOCK_TOKENS

BLOCK_ATTENTION = "lengthwise_blocks"
_LOG2_E = math.log2(math.e)
_MASKED = -1e30  # finite, so that a block that is masked as a whole gives zeros and not NaN


@dataclass(frozen=True)
class BlockView:
    """What tokens see of the cache. `row` (long, blocks): the row that owns the block, any for a free one. `start`
    (long, blocks): the position of the block's first key in its row, far beyond all for a free one. `position` (long,
    rows × tokens): where each row's tokens stand."""

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
        """0 where a key is seen, hugely negative elsewhere: float32, blocks × 1 × tokens × BLOCK_TOKENS."""
        known = self._bias.get((sliding_window, device))
        if known is None:
            known = self._bias[sliding_window, device] = self._make_bias(sliding_window).to(device)
        return known

    def _make_bias(self, sliding_window: int | None) -> Tensor:
        distance = (self.position[self.row] - self.start.unsqueeze(1)).unsqueeze(2) - self._places
        is_seen = distance >= 0
        if sliding_window is not None:
            is_seen &= distance < sliding_window
        return torch.where(is_seen, 0.0, _MASKED).unsqueeze(1)


@dataclass(frozen=True)
class EarlierTokens:
    """Tokens that come along in a pass, behind the newest ones: all that rows which enter have before their newest.

    `view`: of these rows, padded to the longest, and of `block` (long): their blocks. `token` (long, rows × longest):
    which of the pass's tokens stands there, any of the row's own for padding. `place` (long, tokens): where in that,
    flattened, each token stands."""

    view: BlockView
    block: Tensor
    token: Tensor
    place: Tensor


@dataclass(frozen=True)
class PassView:
    """What a pass reads: `newest` is of each row's newest token and all blocks, as they lie."""

    newest: BlockView
    earlier: EarlierTokens | None = None


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
    shape = _Shape(scaling, sliding_window, softcap, s_aux)
    view = _view.get()
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
    highest = of_block.new_full((num_rows, of_block.shape[1]), _MASKED)
    return highest.scatter_reduce_(0, row.unsqueeze(1).expand_as(of_block), of_block, "amax")


def _row_sum(of_block: Tensor, row: Tensor, num_rows: int) -> Tensor:
    return of_block.new_zeros(num_rows, of_block.shape[1]).index_add_(0, row, of_block)


AttentionInterface.register(BLOCK_ATTENTION, attend)
