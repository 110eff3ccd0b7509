"""When memory ends, rows are put back and the others go on; when numbers end, one row fails."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from lengthwise.engines.transformers.cache import BLOCK_TOKENS, BlockCache
from lengthwise.engines.transformers.engine import is_out_of_memory
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.types import Failed, Finished, Progress, Request

Make = Callable[..., Any]


@contextmanager
def room_for(model: Any, is_too_large: Callable[[Any], bool], error: Exception) -> Iterator[None]:
    """Within it the model's forward raises `error` for input ids that are too large."""

    def check(module: Any, args: Any, kwargs: Any) -> None:
        if is_too_large(kwargs["input_ids"]):
            raise error

    handle = model.register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried ..."),
]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    ("is_too_large", "riding_tokens", "most_rows"),
    [
        (lambda ids: ids.shape[1] == 1 and len(ids) > 3, 0, 3),  # a step of more than three rows
        (lambda ids: ids.shape[1] > 1 and len(ids) > 3, 0, 3),  # more than three prompts
        (lambda ids: len(ids) > 30, 256, 9),  # a step with more than thirty tokens, those of prompts among them
    ],
)
def test_no_answer_is_lost_or_repeated(
    error: Exception,
    is_too_large: Callable[[Any], bool],
    riding_tokens: int,
    most_rows: int,
    make_engine: Make,
    loaded_ids: Callable[..., LoadedModel],
    tools: Any,
) -> None:
    """With memory for a few rows and ten asked for: half of them come back with their tokens, until it goes;
    every answer is the one that it is alone, and the engine says that it takes fewer."""
    requests = tools.make_requests(10, max_prompt=20, max_tokens=25)
    expected = tools.Driver(make_engine(), at_once=1).run(requests)
    engine = make_engine(max_padding_tokens=10_000, max_riding_tokens=riding_tokens)
    driver = tools.Driver(engine, at_once=10)
    with room_for(loaded_ids().for_passes, is_too_large, error):
        assert driver.run(requests) == expected
    assert any(cut.reason == "memory" for cut in driver.cuts)
    assert 1 <= engine.capabilities.max_running <= most_rows


def test_a_known_budget_is_reserved_at_once(make_engine: Make, tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is copied as rows come and grow; with no budget it begins small. Answers are the same."""
    requests = tools.make_requests(8, max_prompt=70, max_tokens=60)
    sizes: dict[float, list[int]] = {}
    answers, resize = [], BlockCache.resize
    for kv_tokens in (1_500, math.inf):
        resized = sizes[kv_tokens] = []
        monkeypatch.setattr(BlockCache, "resize", lambda cache, num, to=resized: (to.append(num), resize(cache, num)))
        engine = make_engine(kv_tokens=kv_tokens, max_running=8)
        answers.append(tools.Driver(engine, at_once=8).run(requests))
        monkeypatch.undo()
    assert answers[0] == answers[1]
    assert sizes[1_500] == [-(-1_500 // BLOCK_TOKENS)]
    assert sizes[math.inf][0] < sizes[1_500][0]


@pytest.mark.parametrize("riding_tokens", [0, 256])
def test_a_row_that_does_not_fit_alone_fails(
    riding_tokens: int, make_engine: Make, loaded_ids: Callable[..., LoadedModel], tools: Any
) -> None:
    """Its failure names the reason and a way out; shorter ones run."""
    requests = [
        replace(request, prompt="7 " * (50 if index == 3 else 5), max_tokens=8)
        for index, request in enumerate(tools.make_requests(6))
    ]
    with room_for(loaded_ids().for_passes, lambda ids: max(ids.shape) > 40, ERRORS[0]):
        answers = tools.Driver(make_engine(max_riding_tokens=riding_tokens)).run(requests)
    failed = [answer for answer in answers.values() if isinstance(answer, Failed)]
    assert [answer.id for answer in failed] == ["r3"]
    assert failed[0].error.type == "out_of_memory"
    assert "max_tokens" in failed[0].error.message
    assert len(answers) == 6


def test_a_row_alone_may_use_what_others_have_left(
    make_engine: Make, loaded_ids: Callable[..., LoadedModel], tools: Any
) -> None:
    """The cache has become large, and is empty: a row that needs the memory gets it, at its start and when it has
    tokens already."""
    many = tools.make_requests(12, max_tokens=5)
    one = replace(tools.make_requests(1)[0], id="one", max_tokens=40)
    expected = tools.Driver(make_engine(), at_once=1).run([one])
    engine = make_engine()
    cache = engine._model._cache
    for length in (2, 1):  # of the input at which memory ends: a prompt, then a step
        tools.Driver(engine, at_once=12).run(many)
        assert cache.num_blocks >= 12
        with room_for(
            loaded_ids().for_passes, lambda ids, n=length: ids.shape[1] >= n and cache.num_blocks > 3, ERRORS[0]
        ):
            assert tools.Driver(engine).run([one]) == expected


@pytest.mark.parametrize("num_before", [*range(9), 10, 13, 15])
def test_memory_may_end_in_any_layer_of_the_cache(
    num_before: int,
    make_engine: Make,
    loaded_ids: Callable[..., LoadedModel],
    tools: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While it is first allocated, while it grows, while it shrinks after that: no answer changes."""
    loaded = replace(loaded_ids(), eos_token_ids=())
    requests = [replace(r, max_tokens=100 + i) for i, r in enumerate(tools.make_requests(6, max_prompt=70))]
    expected = tools.Driver(make_engine(loaded=loaded), at_once=1).run(requests)
    make_empty: Any = torch.Tensor.new_empty
    num_made = 0

    def new_empty(self: Any, *size: Any, **options: Any) -> Any:
        nonlocal num_made
        if len(size) == 4:  # blocks × heads × size of a head × tokens
            num_made += 1
            if num_made - 1 in (num_before, num_before + 3):
                raise ERRORS[1]
        return make_empty(self, *size, **options)

    monkeypatch.setattr(torch.Tensor, "new_empty", new_empty)
    assert tools.Driver(make_engine(loaded=loaded), at_once=6).run(requests) == expected
    assert num_made > num_before + 3


@pytest.mark.parametrize(
    "text",
    [
        "MPS backend out of memory (MPS allocated: 8.85 GiB, other allocations: 96 MiB, max allowed: 9.07 GiB).",
        "[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.",
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_every_device_has_its_words_for_it(text: str) -> None:
    """Where no class of its own tells it, the text does."""
    assert is_out_of_memory(RuntimeError(text))


def test_other_errors_are_not_taken_for_memory(
    make_engine: Make, loaded_ids: Callable[..., LoadedModel], tools: Any
) -> None:
    """A broken model is an error of the run, not a smaller batch."""
    engine = make_engine()
    engine.start(tools.make_requests(1)[0], [], 10**6, None)
    with (
        room_for(loaded_ids().for_passes, lambda ids: True, RuntimeError("mat1 and mat2 shapes cannot be multiplied")),
        pytest.raises(RuntimeError, match="mat1 and mat2"),
    ):
        engine.poll(1.0)


def test_a_full_cache_puts_the_newest_row_back(
    make_engine: Make, loaded_ids: Callable[..., LoadedModel], tools: Any
) -> None:
    """With blocks for two or three rows of six the rest waits or comes back (`memory`), the number of rows stays,
    and no answer changes."""
    loaded = replace(loaded_ids(), eos_token_ids=())
    requests = [replace(r, max_tokens=130 + i) for i, r in enumerate(tools.make_requests(6, max_prompt=20))]
    expected = tools.Driver(make_engine(loaded=loaded), at_once=6).run(requests)
    engine = make_engine(loaded=loaded, max_running=6, kv_tokens=400)
    driver = tools.Driver(engine, at_once=6)
    assert driver.run(requests) == expected
    assert any(cut.reason == "memory" for cut in driver.cuts)
    assert engine.capabilities.max_running == 6


def test_a_row_that_is_larger_than_the_cache_fails(
    make_engine: Make, loaded_ids: Callable[..., LoadedModel], tools: Any
) -> None:
    """Whether its prompt or its answer is too long: it fails, the others don't."""
    loaded = replace(loaded_ids(), eos_token_ids=())
    short, grows, long = tools.make_requests(3, max_prompt=20)
    requests = [
        replace(short, max_tokens=5),
        replace(grows, max_tokens=200),
        replace(long, prompt="7 " * 150, max_tokens=5),
    ]
    answers = tools.Driver(make_engine(loaded=loaded, max_running=2, kv_tokens=128)).run(requests)
    assert [isinstance(answers[request.id], Failed) for request in requests] == [False, True, True]


POISON = 383
BAD_PROMPT = f"5 {POISON} 6"


def poisoned(loaded: LoadedModel) -> LoadedModel:
    """The same, with NaN for the embedding of POISON."""
    model = copy.deepcopy(loaded.model)
    with torch.no_grad():
        model.get_input_embeddings().weight[POISON] = float("nan")
    return replace(loaded, model=model)


def without_poison(requests: list[Request], make_engine: Make, tools: Any) -> list[Request]:
    """Those that have POISON neither in their prompt nor in their answer."""
    answers = tools.Driver(make_engine()).run(requests)
    return [r for r in requests if str(POISON) not in [*str(r.prompt).split(), *answers[r.id].text.split()]]


def run_out(engine: Any) -> dict[str, Any]:
    ended: dict[str, Any] = {}
    while engine._running or engine._waiting or engine._ended:
        ended |= {event.id: event for event in engine.poll(5.0) if not isinstance(event, Progress)}
    return ended


def enter(engine: Any, requests: list[Request]) -> None:
    """Start them, and let them enter, without a step."""
    for request in requests:
        engine.start(request, [], 10**6, None)
    with torch.inference_mode():
        engine._survive(engine._enter)


def test_a_row_without_numbers_fails_alone(
    loaded_ids: Callable[..., LoadedModel], make_engine: Make, tools: Any
) -> None:
    """A token whose embedding is NaN spoils its own row: neighbours, and rows that later get its cache blocks,
    answer as ever."""
    requests = without_poison(tools.make_requests(16, seed=4, max_tokens=20), make_engine, tools)
    clean = tools.Driver(make_engine(), at_once=8).run(requests)
    bad = [replace(request, id="bad" + request.id, prompt=BAD_PROMPT) for request in requests[:6]]
    mixed = [request for pair in zip(bad, requests[:6], strict=True) for request in pair] + requests[6:]
    answers = tools.Driver(make_engine(loaded=poisoned(loaded_ids())), at_once=4).run(mixed)
    for request in bad:
        failed = answers[request.id]
        assert isinstance(failed, Failed)
        assert failed.error.type == "nan_logits"
    assert len(clean) > 8
    for name, answer in clean.items():
        assert isinstance(answers[name], Finished)
        assert answers[name] == answer


def test_a_row_without_numbers_leaves_none_behind_before_its_first_step(
    loaded_ids: Callable[..., LoadedModel], make_engine: Make, tools: Any
) -> None:
    """Its prompt has been read, and it is cancelled: nobody has noticed the NaN in its blocks, and nobody gets it."""
    good = without_poison(tools.make_requests(10), make_engine, tools)
    expected = tools.Driver(make_engine()).run(good)
    engine = make_engine(loaded=poisoned(loaded_ids()), max_riding_tokens=0)
    enter(engine, [replace(good[0], id="bad", prompt=BAD_PROMPT), *good])
    engine.cancel("bad")
    ended = run_out(engine)
    assert {request.id: ended[request.id] for request in good} == expected


def test_a_row_without_numbers_leaves_none_behind_where_memory_ended(
    loaded_ids: Callable[..., LoadedModel], make_engine: Make, tools: Any
) -> None:
    """Of the prompts that enter one has been read, with NaN, when memory ends, and waits on: the row that runs, in the
    block above, answers as if alone."""
    loaded = poisoned(loaded_ids())
    good = replace(without_poison(tools.make_requests(6), make_engine, tools)[0], id="good")
    expected = tools.Driver(make_engine()).run([good])
    engine = make_engine(loaded=loaded, max_padding_tokens=0, max_riding_tokens=0)
    enter(engine, [replace(good, id="beneath"), good])
    engine.cancel("beneath")
    with room_for(loaded.for_passes, lambda ids: ids.shape[1] > 50, ERRORS[1]):
        long = [replace(good, id=f"long{i}", prompt="7 " * 60) for i in range(2)]
        enter(engine, [replace(good, id="bad", prompt=BAD_PROMPT), *long])
    assert [row.id for row in engine._running + engine._waiting] == ["good", "bad"]
    ended = run_out(engine)
    assert ended["good"] == expected["good"]
    assert ended["bad"].error.type == "nan_logits"


def test_a_row_without_numbers_leaves_none_behind_where_it_was_moved_from(
    loaded_ids: Callable[..., LoadedModel], make_engine: Make, tools: Any
) -> None:
    """Gaps are closed before the first step of a row that has NaN. Rows that later have the block where it was, with
    one token in it, answer as if alone."""
    draw = [replace(r, prompt=str(r.prompt).split()[0]) for r in tools.make_requests(16, seed=6)]
    later = without_poison(draw, make_engine, tools)[:10]
    expected = tools.Driver(make_engine()).run(later)
    engine = make_engine(loaded=poisoned(loaded_ids()), max_riding_tokens=0)
    before = [replace(later[0], id=f"before{i}", prompt="7 8", max_tokens=60) for i in range(7)]
    enter(engine, [*before, replace(later[0], id="bad", prompt=BAD_PROMPT)])
    (bad,) = (row for row in engine._running if row.id == "bad")
    assert bad.blocks == [7]
    for request in before[1:]:
        engine.cancel(request.id)
    engine.poll(0.0)
    while bad in engine._running:
        engine.poll(0.0)
    for request in later:
        engine.start(request, [], 10**6, None)
    ended = run_out(engine)
    assert {request.id: ended[request.id] for request in later} == expected
