"""Keys and values of all rows, in blocks.

A block holds `BLOCK_TOKENS` consecutive positions of one row: position p of a row stands in the row's block
p // BLOCK_TOKENS at place p % BLOCK_TOKENS. Blocks of different rows lie in any order in one tensor a layer, reserved
as a whole where the budget is known (memory that was never written costs nothing on a CPU), so rows have lengths of
their own, nothing is padded, and nothing is copied when a row leaves. (The idea is vLLM's paged attention, arXiv
2309.06180; see `attention` for how it is read.)

    taken by a row   its keys and values, up to its position; what is behind is masked
    free             finite rubbish, masked as a whole
    never taken      whatever the memory holds, never read
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from lengthwise.engines.transformers.rows import Row

# Two cores, 128 rows of 50–550 tokens, 8 heads of 32: 32, 64 and 128 take the same time within noise. Half a
# block a row is lost: 16 tokens. (Whoever changes it also removes what numba has kept, `__pycache__/attention_kernel*`:
# the number is compiled in.)
BLOCK_TOKENS = 32


def num_blocks_for(num_tokens: int) -> int:
    return -(-num_tokens // BLOCK_TOKENS)


class OutOfBlocks(Exception):
    """More blocks were asked for than the key/value budget has left."""


class Blocks:
    """Which row has which block. The lowest free ones are given out first, so that what is read stays compact.

    `num_touched` blocks, from the first, have ever been taken; at most `max_blocks` are given out.
    """

    def __init__(self, max_blocks: int) -> None:
        self.max_blocks = max_blocks
        self.num_touched = 0
        self._returned: list[int] = []
        self._owners: set[Row] = set()

    @property
    def num_free(self) -> int:
        return len(self._returned) + self.max_blocks - self.num_touched

    @property
    def density(self) -> float:
        """The share of the touched blocks that rows have."""
        return 1 - len(self._returned) / max(1, self.num_touched)

    def num_touched_with(self, num_more: int) -> int:
        """What `num_touched` will be when so many more are taken. Raises OutOfBlocks if there are not so many."""
        if num_more > self.num_free:
            raise OutOfBlocks
        return self.num_touched + max(0, num_more - len(self._returned))

    def take(self, row: Row, num_tokens: int) -> None:
        """Give the row blocks for `num_tokens` tokens in all. Raises OutOfBlocks, with nothing taken."""
        wanted = num_blocks_for(num_tokens) - len(row.blocks)
        self.num_touched_with(wanted)  # or OutOfBlocks
        row.blocks.extend(self._take() for _ in range(wanted))
        self._owners.add(row)

    def put_back(self, row: Row) -> None:
        for block in row.blocks:
            heapq.heappush(self._returned, block)
        row.blocks = []
        self._owners.discard(row)

    def moves_to_compact(self) -> dict[int, int]:
        """Which taken block must go to which free one, so that no free one is left between those taken."""
        taken = {block for row in self._owners for block in row.blocks}
        high = sorted(block for block in taken if block >= len(taken))
        return dict(zip(high, sorted(set(range(len(taken))) - taken), strict=True))

    def compact(self, moves: Mapping[int, int]) -> None:
        """Rows now have the blocks to which `moves_to_compact` says that theirs have gone."""
        for row in self._owners:
            row.blocks = [moves.get(block, block) for block in row.blocks]
        self._returned, self.num_touched = [], sum(len(row.blocks) for row in self._owners)

    def _take(self) -> int:
        if self._returned:
            return heapq.heappop(self._returned)
        self.num_touched += 1
        return self.num_touched - 1


@dataclass(frozen=True)
class PromptWrite:
    """Where the keys of right-padded prompts go: piece `piece[i]` of prompt `prompt[i]` to block `block[i]`."""

    prompt: Tensor
    piece: Tensor
    block: Tensor

    @classmethod
    def of(cls, rows: Sequence[Row], device: torch.device) -> PromptWrite:
        places = [
            (index, piece, block)
            for index, row in enumerate(rows)
            for piece, block in enumerate(row.blocks[: num_blocks_for(row.position)])
        ]
        return cls(*torch.tensor(places, device=device).T)

    def write(self, states: Tensor, blocks: Tensor) -> None:
        """states: prompts × heads × tokens × size; blocks: blocks × heads × BLOCK_TOKENS × size."""
        missing = -states.shape[2] % BLOCK_TOKENS
        pieces = torch.nn.functional.pad(states, (0, 0, 0, missing)).unflatten(2, (-1, BLOCK_TOKENS))  # type: ignore[no-untyped-call]
        to = blocks.device
        blocks[self.block.to(to)] = pieces[self.prompt.to(to), :, self.piece.to(to)]


@dataclass(frozen=True)
class StepWrite:
    """Where the keys of one new token a row go: block and place (long, n), and how many blocks are read then."""

    block: Tensor
    place: Tensor
    num_read: int

    def write(self, states: Tensor, blocks: Tensor) -> None:
        """states: rows × heads × 1 × size; blocks: blocks × heads × BLOCK_TOKENS × size."""
        to = blocks.device
        blocks[self.block.to(to), :, self.place.to(to)] = states[:, :, 0]


class BlockCache(Cache):  # type: ignore[misc]
    """What `past_key_values` is to the model. Set `write` before each forward pass: it says where new keys go.

    After a PromptWrite the layers see the prompts' own keys only (a prompt is always read whole); after a StepWrite
    they see the first `num_read` blocks, for the block attention. Layers are allocated when they are first written
    (their shapes and devices are then known), with `num_blocks` blocks, of which the first `num_clean` hold numbers.
    """

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=partial(BlockLayer, self))
        self.write: PromptWrite | StepWrite
        self.num_blocks = 0
        self.num_clean = 0

    def resize(self, num_blocks: int) -> None:
        """Have room for `num_blocks` blocks; what stands in the first of them is kept. One layer at a time is held
        twice while it is copied. If memory ends half-way, all layers have at least `num_blocks` as it is then."""
        self.num_blocks = min(self.num_blocks, num_blocks)
        self.num_clean = min(self.num_clean, num_blocks)
        for layer in self._allocated:
            layer.resize(num_blocks)
        self.num_blocks = num_blocks

    def clean(self, num_blocks: int) -> None:
        """Have numbers in the first `num_blocks` blocks: what nobody wrote may be NaN."""
        if num_blocks <= self.num_clean:
            return
        for layer in self._allocated:
            layer.clear(slice(self.num_clean, num_blocks))
        self.num_clean = num_blocks

    def move(self, moves: Mapping[int, int]) -> None:
        """Copy blocks' contents to others. If memory ends half-way, the blocks that were copied are as they were."""
        blocks, to = list(moves), list(moves.values())
        for layer in self._allocated:
            layer.keys[to] = layer.keys[blocks]
            layer.values[to] = layer.values[blocks]

    def clear(self, blocks: Collection[int]) -> None:
        """Overwrite blocks by zeros: a NaN in a masked place spoils a row."""
        for layer in self._allocated:
            layer.clear(list(blocks))

    @property
    def _allocated(self) -> list[BlockLayer]:
        """The layers that have been written; memory may have ended when another was to be."""
        return [layer for layer in self.layers if layer.is_initialized]


class BlockLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values: blocks × heads × BLOCK_TOKENS × size of a head.

    Keys lie transposed in memory (a view hides it): on a CPU their product with the queries takes 0.4 ms instead
    of 0.8 for 640 heads' blocks of 64 × 32 in PyTorch, and the kernel adds them up lane by lane.
    """

    is_sliding = False

    def __init__(self, cache: BlockCache) -> None:
        super().__init__()
        self._cache = cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        num_blocks, num_heads = self._cache.num_blocks, key_states.shape[1]
        self.keys = key_states.new_empty(num_blocks, num_heads, key_states.shape[3], BLOCK_TOKENS).transpose(2, 3)
        self.values = value_states.new_empty(num_blocks, num_heads, BLOCK_TOKENS, value_states.shape[3])
        self.clear(slice(self._cache.num_clean))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        write = self._cache.write
        write.write(key_states, self.keys)
        write.write(value_states, self.values)
        if isinstance(write, StepWrite):
            return self.keys[: write.num_read], self.values[: write.num_read]
        return key_states, value_states

    def resize(self, num_blocks: int) -> None:
        num_kept = self._cache.num_clean
        self.keys = _resized(self.keys.transpose(2, 3), num_blocks, num_kept).transpose(2, 3)
        self.values = _resized(self.values, num_blocks, num_kept)

    def clear(self, blocks: slice | list[int]) -> None:
        self.keys[blocks] = 0
        self.values[blocks] = 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        return 0  # a prompt is always read whole; a step brings its own positions

    def get_max_length(self) -> int:
        return -1


def _resized(old: Tensor, num_blocks: int, num_kept: int) -> Tensor:
    new = old.new_empty(num_blocks, *old.shape[1:])
    new[:num_kept] = old[:num_kept]
    return new
