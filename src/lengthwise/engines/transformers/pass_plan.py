"""What a step reads and writes of the cache: the newest token of all rows, and earlier ones that ride along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from lengthwise.engines.transformers.cache import BLOCK_TOKENS, StepWrite, num_blocks_for
from lengthwise.engines.transformers.pass_view import BlockView, EarlierTokens, Longs, PassView
from lengthwise.engines.transformers.rows import Row

_FAR = 2**40  # a position that no query reaches: the keys of a free block


@dataclass
class Places:
    """Which blocks the rows have; kept from step to step, until one enters or leaves. `num_blocks` (rows); `owner` and
    `start` (blocks) are BlockView's `row` and `start`; `last` (rows): each row's last block."""

    rows: Sequence[Row]
    num_blocks: Longs
    owner: Longs
    start: Longs
    last: Longs

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Places:
        num_blocks = np.array([len(row.blocks) for row in rows])
        blocks = np.fromiter(chain.from_iterable(row.blocks for row in rows), dtype=np.int64, count=num_blocks.sum())
        last = num_blocks.cumsum() - 1
        num_read = int(blocks.max()) + 1
        owner, start = np.zeros(num_read, dtype=np.int64), np.full(num_read, _FAR, dtype=np.int64)
        owner[blocks] = np.repeat(np.arange(len(rows)), num_blocks)
        start[blocks] = _starts(num_blocks)
        return cls(list(rows), num_blocks, owner, start, blocks[last])

    def grow(self, index: int) -> None:
        """The row has got another block."""
        row = self.rows[index]
        block = row.blocks[-1]
        num_more = block + 1 - len(self.owner)
        if num_more > 0:
            self.owner = np.concatenate([self.owner, np.zeros(num_more, dtype=np.int64)])
            self.start = np.concatenate([self.start, np.full(num_more, _FAR, dtype=np.int64)])
        self.num_blocks[index] = len(row.blocks)
        self.owner[block], self.last[index] = index, block
        self.start[block] = (len(row.blocks) - 1) * BLOCK_TOKENS


@dataclass(frozen=True)
class StepPlan:
    """A step's tokens, where each stands in its row (`position`, long, tokens × 1), what they see, and where their
    keys go. First the newest of each row, then what rides along."""

    tokens: list[int]
    position: Tensor
    view: PassView
    write: StepWrite

    @classmethod
    def of(cls, places: Places, position: Longs, riding: Sequence[Row], device: torch.device) -> StepPlan:
        """`position` (rows): of each row's newest token. `riding`: those of the rows whose tokens before that are not
        in the cache yet."""
        plan = cls._of_newest(places, position, device)
        return plan._with(riding, device) if riding else plan

    @classmethod
    def _of_newest(cls, places: Places, position: Longs, device: torch.device) -> StepPlan:
        owner, start, at, last, place = _sent(
            (places.owner, places.start, position[:, None], places.last, position % BLOCK_TOKENS), device
        )
        view = PassView(BlockView(owner, start, at))
        write = StepWrite(last, place, len(owner))
        return cls([row.last_token for row in places.rows], at, view, write)

    def _with(self, riding: Sequence[Row], device: torch.device) -> StepPlan:
        num = np.array([[row.position] for row in riding])
        column = np.arange(num.max())
        is_there = column < num
        position = np.minimum(column, num - 1)  # padding repeats its row's last token
        token = len(self.tokens) + num.cumsum(axis=0) - num + position
        num_blocks = np.array([num_blocks_for(row.position) for row in riding])
        blocks = np.concatenate([row.blocks[:n] for row, n in zip(riding, num_blocks, strict=True)])
        first_block = (num_blocks.cumsum() - num_blocks)[:, None]
        block = blocks[first_block + position // BLOCK_TOKENS]
        owner = np.repeat(np.arange(len(riding)), num_blocks)
        of_block, start, column_at = _sent((owner, _starts(num_blocks), position), device)
        view = BlockView(of_block, start, column_at)
        earlier = EarlierTokens(view, *_sent((blocks, token, np.flatnonzero(is_there)), device))
        to, at = _sent((block[is_there], position[is_there]), device)
        write = self.write
        return StepPlan(
            [*self.tokens, *chain.from_iterable((row.prompt + row.tokens)[:-1] for row in riding)],
            torch.cat([self.position, at.unsqueeze(1)]),
            PassView(self.view.newest, earlier),
            StepWrite(torch.cat([write.block, to]), torch.cat([write.place, at % BLOCK_TOKENS]), write.num_read),
        )


def positions_of(rows: Sequence[Row]) -> Longs:
    """Where each row's newest token stands (rows)."""
    return np.array([row.position for row in rows], dtype=np.int64)


def _starts(num_blocks: Longs) -> Longs:
    """Where each block of rows with so many begins in its row (blocks of all rows, one row after the other)."""
    before = num_blocks.cumsum() - num_blocks
    return (np.arange(num_blocks.sum()) - np.repeat(before, num_blocks)) * BLOCK_TOKENS


def _sent(arrays: Sequence[Longs], device: torch.device) -> list[Tensor]:
    return [torch.from_numpy(array).to(device) for array in arrays]
