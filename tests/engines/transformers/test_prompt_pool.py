"""What the engine tells of the prompts that it reads for its answers, and that it costs them nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lengthwise.engines.transformers.backbone import LocalBackbone
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.protocols import PromptPooling
from lengthwise.testing import check_engine
from lengthwise.types import Cut, Finished, Progress, PromptRead, Request

Make = Callable[..., Any]
Load = Callable[..., LoadedModel]


def all_events(engine: Any, requests: list[Request], cap: int = 1000) -> list[Any]:
    """All that is reported of requests that are started at once, progress left out."""
    for request in requests:
        engine.start(request, (), cap, None)
    events: list[Any] = []
    while sum(not isinstance(event, PromptRead) for event in events) < len(requests):
        events += [event for event in engine.poll(1.0) if not isinstance(event, Progress)]
    return events


def states_of(events: list[Any]) -> dict[str, Any]:
    return {event.id: event.state for event in events if isinstance(event, PromptRead)}


@pytest.mark.parametrize("pooling", ["mean", "last", "entropy"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "mixtral"])
@pytest.mark.parametrize("riding_tokens", [0, 256])
def test_states_are_those_of_a_backbone(
    riding_tokens: int, family: str, pooling: Any, make_engine: Make, loaded_ids: Load, tools: Any
) -> None:
    """Whatever entered beside it, and however long it is (one token: nothing is read before the first step): the state
    is the one that the prompt has alone."""
    requests = tools.make_requests(12, max_tokens=4)
    requests[5] = replace(requests[5], prompt="17")
    engine = make_engine(family, max_padding_tokens=200, max_riding_tokens=riding_tokens)
    assert isinstance(engine, PromptPooling)
    assert engine.pool_prompts(pooling)
    found = states_of(all_events(engine, requests))
    backbone = LocalBackbone(loaded_ids(family))
    expected = np.vstack([backbone.states([request], pooling) for request in requests])
    assert found["r0"].dtype == np.float32
    np.testing.assert_allclose([found[request.id] for request in requests], expected, atol=1e-4)


@pytest.mark.parametrize("pooling", ["mean", "entropy"])
def test_answers_stay_as_they_are(pooling: Any, make_engine: Make, loaded_ids: Load, tools: Any) -> None:
    """Logits are equal to the last bit, so answers are, greedy and drawn; the conformance checks pass."""
    requests = [*tools.make_requests(10, max_tokens=25), *tools.make_requests(8, seed=4, temperature=1.0)]
    requests = [replace(request, id=str(number)) for number, request in enumerate(requests)]
    seen: list[list[Any]] = []
    for wanted in (None, pooling):
        engine = make_engine()
        engine.pool_prompts(wanted)
        logits: list[Any] = []
        with watched_logits(loaded_ids().for_passes, logits):
            seen.append([event for event in all_events(engine, requests) if isinstance(event, Finished)])
        seen.append(logits)
    assert seen[0] == seen[2]
    assert len(seen[1]) == len(seen[3])
    assert all(torch.equal(one, other) for one, other in zip(seen[1], seen[3], strict=True))
    engine = make_engine()
    engine.pool_prompts(pooling)
    check_engine(engine, requests[:6])


class watched_logits:
    """Within it, what the model gives is kept."""

    def __init__(self, model: Any, kept: list[Any]) -> None:
        self.handle = model.register_forward_hook(lambda module, inputs, output: kept.append(output.logits.clone()))

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        self.handle.remove()


def test_each_prompt_is_told_once_and_before_its_end(make_engine: Make, tools: Any) -> None:
    """Also where the first token is the last. What goes on after a cut was told before."""
    requests = [replace(request, max_tokens=1 + number % 4) for number, request in enumerate(tools.make_requests(9))]
    engine = make_engine()
    engine.pool_prompts("mean")
    events = all_events(engine, requests)
    kinds = [(event.id, type(event)) for event in events]
    for request in requests:
        of_it = [kind for name, kind in kinds if name == request.id]
        assert of_it == [PromptRead, Finished]
    longer = [replace(request, max_tokens=40) for request in requests]
    cuts = [event for event in all_events(engine, longer, cap=2) if isinstance(event, Cut)]
    assert cuts
    for cut in cuts:
        engine.start(next(one for one in longer if one.id == cut.id), cut.tokens, 30, None)
    rest = [event for _ in range(40) for event in engine.poll(1.0)]
    assert {event.id for event in rest if isinstance(event, Finished | Cut)} == {cut.id for cut in cuts}
    assert not states_of(rest)


def test_nothing_is_told_unasked(make_engine: Make, tools: Any) -> None:
    """Before it was asked, and after it was told to stop; no hook stays on the model, and nothing of rows is kept."""
    engine = make_engine()
    assert not states_of(all_events(engine, tools.make_requests(3)))
    engine.pool_prompts("last")
    assert len(states_of(all_events(engine, tools.make_requests(3)))) == 3
    engine.pool_prompts(None)
    assert not states_of(all_events(engine, tools.make_requests(3)))
    assert not engine._loaded.for_passes.base_model._forward_hooks
    assert not engine._model.prompts._sums


@pytest.mark.parametrize(("riding_tokens", "room"), [(0, 3), (256, 30)])
def test_a_row_that_is_put_back_unread_is_told_later(
    riding_tokens: int, room: int, make_engine: Make, loaded_ids: Load, tools: Any
) -> None:
    """Memory ends in the first step: nobody's state is told twice or lost, and each is right."""
    requests = tools.make_requests(6, max_prompt=20, max_tokens=10)
    engine = make_engine(max_padding_tokens=10_000, max_riding_tokens=riding_tokens)
    engine.pool_prompts("mean")
    error = torch.OutOfMemoryError("CUDA out of memory.")

    def check(module: Any, args: Any, kwargs: Any) -> None:
        if kwargs["input_ids"].shape[1] == 1 and len(kwargs["input_ids"]) > room:
            raise error

    told: list[Any] = []
    poll = engine.poll
    engine.poll = lambda timeout_s: told.extend(events := poll(timeout_s)) or events_of_rows(events)
    handle = loaded_ids().for_passes.register_forward_pre_hook(check, with_kwargs=True)
    try:
        tools.Driver(engine, at_once=6).run(requests)
    finally:
        handle.remove()
    read = [event for event in told if isinstance(event, PromptRead)]
    assert any(isinstance(event, Cut) for event in told)
    assert sorted(event.id for event in read) == [request.id for request in requests]
    assert not engine._model.prompts._sums
    expected = LocalBackbone(loaded_ids()).states(requests, "mean")
    np.testing.assert_allclose([states_of(read)[request.id] for request in requests], expected, atol=1e-4)


def events_of_rows(events: list[Any]) -> list[Any]:
    return [event for event in events if not isinstance(event, PromptRead)]
