"""Blocks: who has which, and attention over them."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig

from lengthwise.engines.transformers import attention_kernel
from lengthwise.engines.transformers.attention import attend, block_attention
from lengthwise.engines.transformers.cache import (
    BLOCK_TOKENS,
    BlockCache,
    Blocks,
    OutOfBlocks,
    PromptWrite,
    StepWrite,
    num_blocks_for,
)
from lengthwise.engines.transformers.pass_plan import Places, StepPlan, positions_of
from lengthwise.engines.transformers.pass_view import BlockView, PassView
from lengthwise.engines.transformers.rows import Row
from lengthwise.types import SamplingParams

HEADS, KV_HEADS, SIZE = 4, 2, 8
CPU = torch.device("cpu")
MODEL: Any = SimpleNamespace(config=LlamaConfig())


def make_row(num_tokens: int) -> Row:
    """A row with `num_tokens` tokens in the cache and one that is new."""
    return Row("r", SamplingParams(), [0] * (num_tokens + 1), [], 10**6, 10**6)


@settings(max_examples=50, deadline=None)
@given(actions=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5 * BLOCK_TOKENS)), max_size=40))
def test_no_block_has_two_owners(actions: list[tuple[int, int]]) -> None:
    """Whatever is taken, given back and compacted: rows' blocks are distinct, as many as their tokens need, and none
    is lost; a request for too many takes nothing."""
    free, rows = Blocks(12), [make_row(0) for _ in range(4)]
    for which, num_tokens in actions:
        if which == 4:
            free.compact(free.moves_to_compact())
            assert sorted(block for row in rows for block in row.blocks) == list(range(free.num_touched))
        elif num_tokens == 0:
            free.put_back(rows[which])
        else:
            _take(free, rows[which], num_tokens)
        taken = [block for row in rows for block in row.blocks]
        assert len(set(taken)) == len(taken) == 12 - free.num_free
        assert all(0 <= block < free.num_touched <= 12 for block in taken)


def _take(free: Blocks, row: Row, num_tokens: int) -> None:
    before = list(row.blocks)
    wanted = max(num_blocks_for(num_tokens), len(before))
    if wanted - len(before) > free.num_free:
        with pytest.raises(OutOfBlocks):
            free.take(row, num_tokens)
        assert row.blocks == before
    else:
        free.take(row, num_tokens)
        assert len(row.blocks) == wanted
        assert row.blocks[: len(before)] == before


class Written:
    """Rows whose keys and values are in a cache of one layer, and the same side by side."""

    def __init__(self, num_tokens: list[int], dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(0)
        self.rows = [make_row(num) for num in num_tokens]
        longest = max(num_tokens) + 1
        shape = (len(num_tokens), KV_HEADS, longest, SIZE)
        self.keys = torch.randn(shape, generator=generator, dtype=dtype)
        self.values = torch.randn(shape, generator=generator, dtype=dtype)
        self.query = torch.randn(len(num_tokens), HEADS, 1, SIZE, generator=generator, dtype=dtype)
        self.free, self.cache = Blocks(100), BlockCache()
        free_before = make_row(0)
        self.free.take(free_before, 3 * BLOCK_TOKENS)
        for row in self.rows:
            self.free.take(row, row.position + 1)
        self.free.put_back(free_before)  # holes
        self.cache.resize(self.free.num_touched)
        self.cache.clean(self.free.num_touched)
        self.cache.write = PromptWrite.of(self.rows, CPU)
        self.cache.update(self.keys[:, :, :-1], self.values[:, :, :-1], 0)

    def step(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Write each row's new key and value; what attention is then given."""
        position = torch.tensor([row.position for row in self.rows])
        block = torch.tensor([row.blocks[-1] for row in self.rows])
        self.cache.write = StepWrite(block, position % BLOCK_TOKENS, self.free.num_touched)
        new = torch.arange(len(self.rows)), slice(None), position
        return self.cache.update(self.keys[new].unsqueeze(2), self.values[new].unsqueeze(2), 0)

    def attend(self, **options: Any) -> torch.Tensor:
        """A step's attention."""
        key, value = self.step()
        with block_attention(MODEL.config, PassView(self.view)):
            return attend(torch.nn.Module(), self.query, key, value, None, **options)[0]

    @property
    def view(self) -> BlockView:
        owner = torch.zeros(self.free.num_touched, dtype=torch.long)
        start = torch.full((self.free.num_touched,), 2**40)
        for index, row in enumerate(self.rows):
            owner[row.blocks] = index
            start[row.blocks] = torch.arange(len(row.blocks)) * BLOCK_TOKENS
        return BlockView(owner, start, torch.tensor([[row.position] for row in self.rows]))

    def expected(
        self,
        index: int,
        scaling: float,
        window: int | None,
        softcap: float | None,
        s_aux: torch.Tensor | None,
        end: int | None = None,
        query: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The textbook, for one token of a row, the newest if not another: 1 × heads × size. `end`: tokens up to it."""
        end = self.rows[index].position + 1 if end is None else end
        query = self.query[index] if query is None else query
        begin = max(0, end - window) if window else 0
        keys = self.keys[index, :, begin:end].repeat_interleave(HEADS // KV_HEADS, 0).double()
        values = self.values[index, :, begin:end].repeat_interleave(HEADS // KV_HEADS, 0).double()
        scores = (query.double() @ keys.transpose(1, 2)) * scaling
        scores = scores if softcap is None else torch.tanh(scores / softcap) * softcap
        sink = torch.full((HEADS,), -torch.inf) if s_aux is None else s_aux
        weights = torch.cat([scores, sink.double().view(HEADS, 1, 1)], -1).softmax(-1)[..., :-1]
        return (weights @ values).transpose(0, 1).float()


@pytest.fixture(params=["kernel", "plain operations"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to attend on a CPU; the kernel takes neither soft caps nor sinks."""
    assert attention_kernel._works(), "numba can't be used here"
    if request.param != "kernel":
        monkeypatch.setattr(attention_kernel, "_works", lambda: False)


LENGTHS = [0, 1, BLOCK_TOKENS - 1, BLOCK_TOKENS, BLOCK_TOKENS + 1, 3 * BLOCK_TOKENS + 5, 17]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("window", [None, 1, 10, BLOCK_TOKENS, 10_000])
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("s_aux", [None, torch.linspace(-3, 3, HEADS)])
def test_attention_over_blocks_is_attention(
    window: int | None, softcap: float | None, s_aux: torch.Tensor | None
) -> None:
    """Rows of very different length, free blocks between them, windows, soft caps and sinks: each row's output is
    that of the row alone."""
    written = Written(LENGTHS)
    out = written.attend(scaling=0.3, sliding_window=window, softcap=softcap, s_aux=s_aux)
    assert out.shape == (len(LENGTHS), 1, HEADS, SIZE)
    for index in range(len(LENGTHS)):
        expected = written.expected(index, 0.3, window, softcap, s_aux)
        torch.testing.assert_close(out[index], expected, atol=2e-6, rtol=1e-5)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("scaling", [0.0, 40.0, -1e4])
def test_scores_may_lie_together_or_far_apart(scaling: float) -> None:
    """All the same; a few that count; one that counts alone, thousands of powers above the others."""
    written = Written(LENGTHS)
    out = written.attend(scaling=scaling)
    for index in range(len(LENGTHS)):
        expected = written.expected(index, scaling, None, None, None)
        torch.testing.assert_close(out[index], expected, atol=1e-4 if scaling > 1 else 2e-6, rtol=1e-5)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["keys", "values"])
def test_what_is_no_number_stays_in_its_row(number: float, where: str) -> None:
    """The row that has it among its keys or values gives NaN; the others are the same to the bit."""
    before = Written(LENGTHS).attend()
    written = Written(LENGTHS)
    row = written.rows[5]
    getattr(written.cache.layers[0], where)[row.blocks[1], :, 3] = number
    out = written.attend()
    assert not torch.isfinite(out[5]).any(dim=-1).all()
    if where == "values" or number != number:
        assert not torch.isfinite(out[5]).all(dim=-1).any()
    others = [index for index in range(len(LENGTHS)) if index != 5]
    assert torch.equal(out[others], before[others])


def test_the_kernel_takes_what_it_was_made_for() -> None:
    """Numbers of 32 bits on a CPU, heads that divide into what is unrolled."""
    blocks = torch.zeros(1, 1, BLOCK_TOKENS, 16)
    query = torch.zeros(1, 1, 1, 16)
    assert attention_kernel.can_attend(query, blocks, blocks)
    assert not attention_kernel.can_attend(query.bfloat16(), blocks.bfloat16(), blocks.bfloat16())
    assert not attention_kernel.can_attend(query[..., :12], blocks[..., :12], blocks)
    assert not attention_kernel.can_attend(query.to("meta"), blocks.to("meta"), blocks.to("meta"))


def test_the_kernel_leaves_the_number_of_threads_as_it_was() -> None:
    """Of a program that starts with one: numba starts as many as there are cores."""
    asked = (
        "import torch; from lengthwise.engines.transformers import attention_kernel; "
        "assert attention_kernel._works(); print(torch.get_num_threads())"
    )
    out = subprocess.run(
        [sys.executable, "-c", asked], env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=True
    )
    assert out.stdout.split() == [b"1"]


def test_without_a_compiler_attention_is_by_plain_operations(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so, once, and answers are those of the kernel."""
    by_kernel = Written(LENGTHS).attend()
    monkeypatch.setattr(attention_kernel, "_attend_pairs", _no_compiler)
    monkeypatch.setattr(attention_kernel, "_works", cache(attention_kernel._works.__wrapped__))
    with caplog.at_level("INFO", logger="lengthwise"):
        torch.testing.assert_close(Written(LENGTHS).attend(), by_kernel)
        Written(LENGTHS).attend()
    assert [record.getMessage() for record in caplog.records] == [
        "attention by PyTorch's own operations: numba can't be used here (No threading layer could be loaded.)"
    ]


def _no_compiler(*arguments: Any) -> None:
    raise ValueError("No threading layer could be loaded.")


def test_attention_in_sixteen_bits_rounds_only_inputs_and_output() -> None:
    """bfloat16 keys and values: the output is that of float64 within a few roundings of bfloat16."""
    written = Written(LENGTHS, torch.bfloat16)
    out = written.attend()
    assert out.dtype == torch.bfloat16
    for index in range(len(LENGTHS)):
        expected = written.expected(index, SIZE**-0.5, None, None, None)
        torch.testing.assert_close(out[index].float(), expected, atol=0.03, rtol=0.03)


def test_growing_and_compacting_keep_what_is_there() -> None:
    """After both, attention gives the same, from fewer blocks."""
    written = Written(LENGTHS)
    written.cache.resize(90)
    before = written.attend()
    num_before = written.free.num_touched
    moves = written.free.moves_to_compact()
    written.cache.move(moves)
    written.free.compact(moves)
    written.cache.resize(written.free.num_touched)
    assert written.free.num_touched == num_before - 3
    torch.testing.assert_close(written.attend(), before, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("asked", "left"), [(90, 17), (10, 10)])
def test_memory_may_end_while_the_cache_is_resized(asked: int, left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every layer then has the blocks that the cache says it has, and asking again is enough."""
    written = Written(LENGTHS)
    written.cache.update(written.keys[:, :, :-1], written.values[:, :, :-1], 1)
    written.cache.resize(17)
    monkeypatch.setattr(written.cache.layers[1], "resize", _no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        written.cache.resize(asked)
    monkeypatch.undo()
    assert written.cache.num_blocks == left
    assert all(len(layer.keys) >= left for layer in written.cache.layers)
    written.cache.resize(asked)
    assert written.cache.num_blocks == asked == len(written.cache.layers[1].values)


def _no_memory(num_blocks: int) -> None:
    raise torch.OutOfMemoryError


def test_prompts_see_their_own_keys_only() -> None:
    """While prompts are read, the cache hands back what it was given: nothing else is there for them."""
    cache: Any = BlockCache()
    rows = [make_row(5)]
    Blocks(1).take(rows[0], 6)
    cache.resize(1)
    cache.write = PromptWrite.of(rows, CPU)
    states = torch.randn(1, KV_HEADS, 5, SIZE)
    keys, values = cache.update(states, states, 0)
    assert keys is states
    assert values is states
    assert cache.get_seq_length() == 0


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("window", [None, 1, 10, BLOCK_TOKENS])
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("s_aux", [None, torch.linspace(-3, 3, HEADS)])
def test_tokens_that_ride_along_attend_to_what_stands_before_them(
    window: int | None, softcap: float | None, s_aux: torch.Tensor | None
) -> None:
    """Rows run whose keys are there; others bring all of theirs. Every token, earlier or newest, has the textbook's
    output, and each key is where its row will look for it."""
    written, riding = Written(LENGTHS), [1, 3, 5]
    rows = [written.rows[index] for index in riding]
    for row in rows:  # as if nobody had read them
        written.cache.clear(row.blocks)
    plan = StepPlan.of(Places.of(written.rows), positions_of(written.rows), rows, CPU)
    index = torch.tensor([*range(len(LENGTHS)), *(i for i in riding for _ in range(written.rows[i].position))])
    place = plan.position.squeeze(1)
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(len(index), HEADS, 1, SIZE, generator=generator)
    written.cache.write = plan.write
    key, value = written.cache.update(
        written.keys[index, :, place].unsqueeze(2), written.values[index, :, place].unsqueeze(2), 0
    )
    options: Any = {"scaling": 0.3, "sliding_window": window, "softcap": softcap, "s_aux": s_aux}
    with block_attention(MODEL.config, plan.view):
        out = attend(torch.nn.Module(), query, key, value, None, **options)[0]
    assert out.shape == (len(index), 1, HEADS, SIZE)
    assert len(index) == len(LENGTHS) + sum(row.position for row in rows)
    for token, (row, end) in enumerate(zip(index.tolist(), place.tolist(), strict=True)):
        expected = written.expected(row, 0.3, window, softcap, s_aux, end=end + 1, query=query[token])
        torch.testing.assert_close(out[token], expected, atol=2e-6, rtol=1e-5)
