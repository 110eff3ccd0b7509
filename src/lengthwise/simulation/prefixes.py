"""Prompts that begin alike: which blocks of them a request has, and a cache of those that were read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

BLOCK_TOKENS = 512  # of a prompt that one id stands for: Mooncake's `hash_ids`

# A request's whole blocks, from its prompt's beginning. The same id is the same block with the same blocks before it.
Prefix = tuple[int, ...]


class PrefixCache:
    """What was read of prompts, in whole blocks (a beginning of a block is nothing). Where it is full, those go that
    were not asked for the longest; of one prompt the last before the first, without which they are of no use.

    It is beside the memory of the rows that run: those have their own copy of what they found here. `num_tokens`: what
    it holds at most.
    """

    def __init__(self, num_tokens: int) -> None:
        self._max_blocks = num_tokens // BLOCK_TOKENS
        self._blocks: OrderedDict[int, None] = OrderedDict()  # asked for last: at the end

    def read(self, prefix: Prefix, prompt_tokens: int) -> int:
        """A prompt is read, and its blocks are kept; how many of its tokens need not be read. Its last token always is:
        what it makes of the model is where the answer begins."""
        num_found = self._num_found(prefix)
        blocks = self._blocks
        for block in reversed(prefix):
            blocks[block] = None
            blocks.move_to_end(block)
        while len(blocks) > self._max_blocks:
            blocks.popitem(last=False)
        return max(0, min(num_found * BLOCK_TOKENS, prompt_tokens - 1))

    def _num_found(self, prefix: Prefix) -> int:
        return next((i for i, block in enumerate(prefix) if block not in self._blocks), len(prefix))


def kept_apart(prefixes: Sequence[Prefix], num_together: int) -> tuple[Prefix, ...]:
    """The same, where each `num_together` that follow each other share nothing with others."""
    num_ids = 1 + max((max(prefix) for prefix in prefixes if prefix), default=0)
    return tuple(tuple(block + i // num_together * num_ids for block in prefix) for i, prefix in enumerate(prefixes))
