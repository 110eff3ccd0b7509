"""What the tokens of a pass see of the cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lengthwise.engines.transformers.cache import BLOCK_TOKENS

MASKED = -1e30  # finite, so that a block that is masked as a whole gives zeros and not NaN

Longs = NDArray[np.int64]


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
        return torch.where(is_seen, 0.0, MASKED).unsqueeze(1)


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

    def pairs(self) -> tuple[Longs, Longs, Longs]:
        """As in Pairs: block, token (counted from the first of these) and last, in any order."""
        view, place = self.view, self.place.numpy(force=True)
        number = np.full(self.token.shape, -1)
        number.flat[place] = np.arange(len(place))
        of_row = view.row.numpy(force=True)
        last = view.position.numpy(force=True)[of_row] - view.start.numpy(force=True)[:, None]
        block, column = np.nonzero((last >= 0) & (number[of_row] >= 0))
        return self.block.numpy(force=True)[block], number[of_row[block], column], last[block, column]


class Pairs(NamedTuple):
    """Each token of a pass with each block of which it sees keys, as the blocks lie in memory (long, pairs).

    `last`: the place in the block of the last key that it sees, past its end where it sees all. `slot`: where the pair
    stands when pairs are ordered by token; those of token t are there from `first[t]` to `first[t + 1]`."""

    block: Longs
    token: Longs
    last: Longs
    slot: Longs
    first: Longs


@dataclass(frozen=True)
class PassView:
    """What a pass reads: `newest` is of each row's newest token and all blocks, as they lie. `windows_seen`: the
    sliding windows that layers have asked for so far; None is full attention."""

    newest: BlockView
    earlier: EarlierTokens | None = None
    windows_seen: set[int | None] = field(default_factory=set)

    @cached_property
    def pairs(self) -> Pairs:
        """Of tokens and the blocks that they see."""
        newest = (self.newest.row, self.newest.start, self.newest.position[:, 0])
        row, start, at = (tensor.numpy(force=True) for tensor in newest)
        last = at[row] - start
        block = np.flatnonzero(last >= 0)
        token, last = row[block], last[block]
        if self.earlier is not None:
            blocks, tokens, lasts = self.earlier.pairs()
            block = np.concatenate([block, blocks])
            token = np.concatenate([token, tokens + len(at)])
            last = np.concatenate([last, lasts])
            as_they_lie = np.argsort(block, kind="stable")
            block, token, last = block[as_they_lie], token[as_they_lie], last[as_they_lie]
        slot = np.empty_like(block)
        slot[np.argsort(token, kind="stable")] = np.arange(len(block))
        return Pairs(block, token, last, slot, np.append(0, np.bincount(token).cumsum()))
