"""How many rows form a batch: from memory, by the paper's table, or a fixed number.

A batch stops when its longest row does, or after as many steps as the greatest grant among its rows; a shorter
cap for one of them would gain nothing, since its tokens are needed anyway and the batch goes on without it. So a
row that runs beside others reserves prompt + kept tokens + the *batch's* steps (at most its own limit), not its
own grant alone. Own caps and own reserves let a few rows more in and cut more of them. Simulated with 1,000
Vicuna-like answers they made no difference where memory was short (2 % either way), and cost 3 % at 64 rows, 4 %
at 128 where it was not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lengthwise.errors import UsageError
from lengthwise.scheduling.rows import Ints, Rows


class Sizing(Protocol):
    """How many of the first `rows` form the next batch, from 1 to len(rows). Pure.

    `rows` (at least one) is what is left of a group, in the order in which it runs. Never more than `free_rows`
    or what fits `free_kv_tokens`, with one exception: a single row is always allowed, for the engine is empty.
    """

    def __call__(self, rows: Rows, free_rows: int, free_kv_tokens: float) -> int: ...


@dataclass(frozen=True)
class MemorySizing:
    """As many rows as the engine holds: its free rows and its free key/value tokens. No table, no magic number."""

    def __call__(self, rows: Rows, free_rows: int, free_kv_tokens: float) -> int:
        return num_that_fit(rows, free_rows, free_kv_tokens)


@dataclass(frozen=True)
class FixedSizing:
    """Always `num_rows`, or fewer where memory is short or the group ends (the paper's runs without VBS: 16)."""

    num_rows: int

    def __post_init__(self) -> None:
        if self.num_rows < 1:
            raise UsageError(f"num_rows is {self.num_rows}; a batch needs at least 1 row.")

    def __call__(self, rows: Rows, free_rows: int, free_kv_tokens: float) -> int:
        return num_that_fit(rows, min(self.num_rows, free_rows), free_kv_tokens)


@dataclass(frozen=True)
class TableSizing:
    """Variable batch size by the paper's table (made for Vicuna-7B on one 80 GB card).

    Requests are binned by predicted length. A bin's last batch that is smaller than max(size // 2, `min_rows`)
    moves up into the next bin that has requests; the top bin keeps its last batch. `rows` must come shortest
    first. What the table says is still checked against the memory at hand.
    """

    sizes: tuple[tuple[int, int], ...] = ((50, 256), (100, 128), (150, 64), (200, 32))  # up to n tokens: rows
    above: int = 16  # rows for anything longer
    bin_tokens: int = 50  # width of a bin
    min_rows: int = 16  # a last batch of this many always stays

    def __post_init__(self) -> None:
        if min(self.above, self.bin_tokens, self.min_rows, *(min(pair) for pair in self.sizes)) < 1:
            raise UsageError(f"{self} has a value below 1; a batch needs at least 1 row and a bin 1 token.")
        if list(self.sizes) != sorted(self.sizes):
            raise UsageError(f"sizes is {self.sizes}; give the lengths in rising order.")

    def __call__(self, rows: Rows, free_rows: int, free_kv_tokens: float) -> int:
        num_rows = self.num_by_table(rows.predicted_tokens)
        return num_that_fit(rows, min(num_rows, free_rows), free_kv_tokens)

    def size(self, num_tokens: int) -> int:
        """The table: rows of a batch whose predicted length is `num_tokens`."""
        return next((size for longest, size in self.sizes if num_tokens <= longest), self.above)

    def num_by_table(self, predicted_tokens: Ints) -> int:
        """Rows of the next batch by table and carry-up rule; `predicted_tokens` rises."""
        end = 0  # rows up to here are too few for a batch of their own and move up
        while True:
            bin_top = -(-int(predicted_tokens[end]) // self.bin_tokens) * self.bin_tokens
            end = int(np.searchsorted(predicted_tokens, bin_top, side="right"))
            size = self.size(bin_top)
            if end >= max(size // 2, self.min_rows) or end == len(predicted_tokens):
                return min(size, end)


def num_that_fit(rows: Rows, free_rows: int, free_kv_tokens: float) -> int:
    """How many of the first `rows` fit beside each other as one batch; at least 1."""
    reserved = reserved_tokens(rows[:free_rows])
    return max(int(np.searchsorted(reserved, free_kv_tokens, side="right")), 1)


def reserved_tokens(rows: Rows) -> Ints:
    """Key/value tokens that the first k rows reserve as one batch, for each k from 1: an upper bound that never falls.

    The bound is the smaller of "all make the batch's steps" and "all reach their own limits".
    """
    held = np.cumsum(rows.prompt_tokens + rows.num_tokens)
    steps = np.maximum.accumulate(rows.granted_tokens) * np.arange(1, len(rows) + 1)
    return np.minimum(held + steps, np.cumsum(rows.prompt_tokens + rows.max_tokens))
