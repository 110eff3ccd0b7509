"""The model's two kinds of forward pass: long prompts go into the cache, and a step gives each row its next logits."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lengthwise.engines.transformers.attention import block_attention
from lengthwise.engines.transformers.cache import (
    BLOCK_TOKENS,
    BlockCache,
    Blocks,
    PromptWrite,
    num_blocks_for,
)
from lengthwise.engines.transformers.memory import release_memory
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.engines.transformers.pass_plan import Places, StepPlan, positions_of
from lengthwise.engines.transformers.pass_view import Longs, PassView
from lengthwise.engines.transformers.prompt_pool import PromptPool
from lengthwise.engines.transformers.rows import Row

# Share of the blocks up to the last one in use that rows must have. A step's time grows with the blocks it reads, and
# moving blocks costs too. That a quarter may be free is a choice, not yet measured against others.
MIN_DENSITY = 0.75

# Tokens for which a running row keeps room when others want to enter: else rows that enter would take the blocks for
# which others have just been put back. With a whole block (32) a row in 25 more waits at the door, one by one, which
# makes half as many passes again; with 8 six rows of 1,000 are put back.
MARGIN_TOKENS = 8


class RowModel:
    """A model whose rows have lengths of their own.

    A row's newest token is never in the cache: `read` takes in all before it, `step` puts it there and gives what
    comes next. So logits are only ever made for one position a row, and a prompt and a cut answer enter alike. Where
    there are few tokens to read, the next step reads them beside the others' newest ones.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        max_blocks: int,
        max_read_tokens: int,
        max_padding_tokens: int,
        max_riding_tokens: int,
        num_reserved: int = 0,
    ) -> None:
        """Limits as in `RowEngineConfig`. `num_reserved` blocks are there from the first row on, so that nothing is
        copied as the cache grows."""
        self._model, self._device = loaded.for_passes, loaded.device
        self._text_config = self._model.config.get_text_config()
        self._cache = BlockCache()
        self._blocks = Blocks(max_blocks)
        self._max_read_tokens = max_read_tokens
        self._max_padding_tokens = max_padding_tokens
        self._max_riding_tokens = max_riding_tokens
        self._num_reserved = num_reserved
        self._places: Places | None = None  # None when rows were moved, or one left
        self._riding: list[Row] = []  # have entered; the next step reads all of them
        self.last_view: PassView | None = None
        self.prompts = PromptPool(self._model)

    def num_fitting(self, waiting: Sequence[Row], running: Sequence[Row]) -> int:
        """How many of those that wait, from the first, may enter now, so that each row has room for MARGIN_TOKENS."""
        num_free = self._blocks.num_free - sum(map(_blocks_needed_soon, running))
        for index, row in enumerate(waiting):
            num_free -= _blocks_needed_soon(row)
            if num_free < 0:
                return index
        return len(waiting)

    def rides(self, row: Row) -> bool:
        """Whether it is short enough to be read along with a step."""
        return row.position <= self._max_riding_tokens

    def read(self, rows: Sequence[Row]) -> None:
        """Let rows enter: their keys, all but the newest token's, go into the cache. The shortest ride along with the
        next step; passes are made for the others. Raises OutOfBlocks, or the device's out-of-memory error: the rows
        have not entered then, and have no blocks."""
        self._take_blocks(rows, positions_of(rows))
        self.prompts.expect(rows)
        unread = sorted((row for row in rows if row.position > 0), key=lambda row: row.position)
        num_riding = self._num_riding(unread)
        try:
            for batch in self._batches(unread[num_riding:]):
                self._read(batch)
        except RuntimeError:
            for row in rows:
                self.leave(row)
            raise
        self._riding += unread[:num_riding]

    def step(self, rows: Sequence[Row]) -> Tensor:
        """Logits of each row's next token, rows × vocabulary. Raises as `read`, but the rows keep what they have: it
        may be repeated. All that ride must be among the rows."""
        position = positions_of(rows)
        self._take_blocks(rows, position)
        self._close_gaps()
        plan = self._plan(rows, position)
        self.last_view, self._cache.write = plan.view, plan.write
        with (
            block_attention(self._text_config, plan.view),
            _logits_of_first(self._model, len(rows) if self._riding else None),
            self.prompts.watching() as seen,
        ):
            out = self._model(
                input_ids=torch.from_numpy(np.array(plan.tokens)).to(self._device).unsqueeze(1),
                position_ids=plan.position,
                past_key_values=self._cache,
                use_cache=True,
            )
        for hidden in seen:
            self.prompts.add_prompts(_pieces(self._riding, hidden[len(rows) :, 0]))
            self.prompts.add_last(rows, hidden[: len(rows)])
        self._riding = []
        logits: Tensor = out.logits[: len(rows), -1]
        return logits

    def leave(self, row: Row, is_finite: bool = False) -> None:
        """Take the row's blocks back. They are cleared, for they may hold NaN, unless the row is known to have none:
        the last step over all that it has in the cache gave numbers."""
        self.prompts.forget(row)
        if row in self._riding:
            self._riding.remove(row)
        if not is_finite:
            self._cache.clear(row.blocks)
        self._blocks.put_back(row)
        self._places = None

    def compact(self) -> None:
        """Give up memory that the rows do not need. Raises the device's out-of-memory error where there is no room to
        copy what they have; the rows are well then, and some layers, or all, as large as before."""
        self._num_reserved = 0
        self._move_together()
        release_memory(self._device)
        self._cache.resize(self._blocks.num_touched)
        release_memory(self._device)

    def close(self) -> None:
        self._cache = BlockCache()
        self.prompts.clear()
        release_memory(self._device)

    def _take_blocks(self, rows: Sequence[Row], position: Longs) -> None:
        """Have room for each row's newest token, which stands at `position` (rows). The cache grows first, so that a
        row has no block that is not there; beyond what was reserved by a quarter more, so that it is seldom copied."""
        places = self._places_of(rows)
        num_held = np.array([len(row.blocks) for row in rows]) if places is None else places.num_blocks
        growing = np.flatnonzero(num_held * BLOCK_TOKENS <= position).tolist()
        num_more = sum(num_blocks_for(rows[index].position + 1) - len(rows[index].blocks) for index in growing)
        num_touched = self._blocks.num_touched_with(num_more)
        if num_touched > self._cache.num_blocks:
            self._cache.resize(min(self._blocks.max_blocks, max(num_touched * 5 // 4, self._num_reserved)))
        self._cache.clean(num_touched)
        for index in growing:
            self._blocks.take(rows[index], rows[index].position + 1)
            if places is not None:
                places.grow(index)

    def _close_gaps(self) -> None:
        """Rows that leave a batch leave free blocks between those of the others, and a step reads them all."""
        if self._blocks.density < MIN_DENSITY:
            self._move_together()

    def _move_together(self) -> None:
        """Move rows into the gaps. They have their new blocks only when all layers have been copied; whichever copy is
        nobody's is cleared, as it may hold NaN."""
        self._places = None
        moves = self._blocks.moves_to_compact()
        nobodys: Collection[int] = moves.values()
        try:
            self._cache.move(moves)
            self._blocks.compact(moves)
            nobodys = moves.keys()
        finally:
            self._cache.clear(nobodys)

    def _num_riding(self, rows: Sequence[Row]) -> int:
        """How many of these rows, the shortest first, ride together with those that do."""
        num_tokens = sum(row.position for row in self._riding)
        upto = num_tokens + np.cumsum([row.position for row in rows])
        return int(np.searchsorted(upto, self._max_riding_tokens, side="right"))

    def _batches(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        """Those of like length together, by length: within `max_read_tokens` and `max_padding_tokens`, or one alone."""
        batch: list[Row] = []
        num_tokens = 0
        for row in rows:
            num_tokens += row.position
            padded = row.position * (len(batch) + 1)
            if batch and (padded > self._max_read_tokens or padded - num_tokens > self._max_padding_tokens):
                yield batch
                batch, num_tokens = [], row.position
            batch.append(row)
        if batch:
            yield batch

    def _read(self, rows: list[Row]) -> None:
        longest = max(row.position for row in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : row.position] = torch.tensor((row.prompt + row.tokens)[:-1])
        self._cache.write = PromptWrite.of(rows, self._device)
        with self.prompts.watching() as seen:
            self._model(
                input_ids=ids.to(self._device),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        for hidden in seen:
            self.prompts.add_prompts([(row, hidden[index, : row.position]) for index, row in enumerate(rows)])

    def _plan(self, rows: Sequence[Row], position: Longs) -> StepPlan:
        self._places = self._places_of(rows) or Places.of(rows)
        return StepPlan.of(self._places, position, self._riding, self._device)

    def _places_of(self, rows: Sequence[Row]) -> Places | None:
        """What is known of these very rows."""
        return self._places if self._places is not None and self._places.rows == rows else None


@contextmanager
def _logits_of_first(model: PreTrainedModel, num: int | None) -> Iterator[None]:
    """Within it logits are made of the first `num` rows only."""
    head = None if num is None else model.get_output_embeddings()
    if head is None:
        yield
        return
    handle = head.register_forward_pre_hook(lambda head, inputs: (inputs[0][:num], *inputs[1:]))
    try:
        yield
    finally:
        handle.remove()


def _pieces(rows: Sequence[Row], hidden: Tensor) -> list[tuple[Row, Tensor]]:
    """Each row with its part of what one row after the other has (tokens × width)."""
    return list(zip(rows, torch.split(hidden, [row.position for row in rows]), strict=True))


def _blocks_needed_soon(row: Row) -> int:
    num_tokens = min(row.position + 1 + MARGIN_TOKENS, len(row.prompt) + row.end)
    return max(0, num_blocks_for(num_tokens) - len(row.blocks))
