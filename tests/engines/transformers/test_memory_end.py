"""When memory ends, rows are put back and the others go on; when numbers end, one row fails."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.types import Failed, Finished

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
@pytest.mark.parametrize("phase", ["step", "prompt"])
def test_no_answer_is_lost_or_repeated(
    error: Exception, phase: str, make_engine: Make, loaded_ids: Callable[..., LoadedModel], tools: Any
) -> None:
    """With memory for three rows and ten asked for: half of them come back with their tokens, until it goes;
    every answer is the one that it is alone, and the engine says that it takes fewer."""
    requests = tools.make_requests(10, max_prompt=20, max_tokens=25)
    expected = tools.Driver(make_engine(), at_once=1).run(requests)
    engine = make_engine(max_padding_tokens=10_000)
    driver = tools.Driver(engine, at_once=10)
    is_step = phase == "step"
    with room_for(loaded_ids().model, lambda ids: (ids.shape[1] == 1) == is_step and len(ids) > 3, error):
        assert driver.run(requests) == expected
    assert any(cut.reason == "memory" for cut in driver.cuts)
    assert 1 <= engine.capabilities.max_running <= 3


def test_a_row_that_does_not_fit_alone_fails(
    make_engine: Make, loaded_ids: Callable[..., LoadedModel], tools: Any
) -> None:
    """Its failure names the reason and a way out; shorter ones run."""
    requests = [
        replace(request, prompt="7 " * (50 if index == 3 else 5), max_tokens=8)
        for index, request in enumerate(tools.make_requests(6))
    ]
    with room_for(loaded_ids().model, lambda ids: ids.shape[1] > 40, ERRORS[0]):
        answers = tools.Driver(make_engine()).run(requests)
    failed = [answer for answer in answers.values() if isinstance(answer, Failed)]
    assert [answer.id for answer in failed] == ["r3"]
    assert failed[0].error.type == "out_of_memory"
    assert "max_tokens" in failed[0].error.message
    assert len(answers) == 6


def test_other_errors_are_not_taken_for_memory(
    make_engine: Make, loaded_ids: Callable[..., LoadedModel], tools: Any
) -> None:
    """A broken model is an error of the run, not a smaller batch."""
    engine = make_engine()
    engine.start(tools.make_requests(1)[0], [], 10**6, None)
    with (
        room_for(loaded_ids().model, lambda ids: True, RuntimeError("mat1 and mat2 shapes cannot be multiplied")),
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
    engine = make_engine(loaded=loaded, max_running=6, kv_tokens=1)
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
    answers = tools.Driver(make_engine(loaded=loaded, max_running=2, kv_tokens=1)).run(requests)
    assert [isinstance(answers[request.id], Failed) for request in requests] == [False, True, True]


def test_a_row_without_numbers_fails_alone(
    loaded_ids: Callable[..., LoadedModel], make_engine: Make, tools: Any
) -> None:
    """A token whose embedding is NaN spoils its own row: neighbours, and rows that later get its cache blocks,
    answer as ever."""
    loaded = loaded_ids()
    model = copy.deepcopy(loaded.model)
    poison = 383
    with torch.no_grad():
        model.get_input_embeddings().weight[poison] = float("nan")
    requests = [r for r in tools.make_requests(16, seed=4, max_tokens=20) if str(poison) not in str(r.prompt).split()]
    clean = {
        name: answer
        for name, answer in tools.Driver(make_engine(), at_once=8).run(requests).items()
        if str(poison) not in answer.text.split()
    }
    bad = [replace(request, id="bad" + request.id, prompt=f"5 {poison} 6") for request in requests[:8]]
    mixed = [request for pair in zip(bad, requests[:8], strict=True) for request in pair] + requests[8:]
    answers = tools.Driver(make_engine(loaded=replace(loaded, model=model)), at_once=4).run(mixed)
    for request in bad:
        failed = answers[request.id]
        assert isinstance(failed, Failed)
        assert failed.error.type == "nan_logits"
    assert len(clean) > 8
    for name, answer in clean.items():
        assert isinstance(answers[name], Finished)
        assert answers[name] == answer
