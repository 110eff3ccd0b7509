"""Requests that run together have settings of their own, in both engines for `transformers` models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lengthwise.engines.transformers.generate_engine import GenerateEngine
from lengthwise.engines.transformers.loading import load_model
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.engines.transformers.options import ModelOptions
from lengthwise.engines.transformers.prompts import Prompts
from lengthwise.types import Finished, Request, SamplingParams

PROMPT = "Write a letter to a friend"
SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "short": {"max_tokens": 3},
    "long": {"max_tokens": 40},
    "warm": {"temperature": 0.7, "seed": 1},
    "hot": {"temperature": 1.5, "seed": 1},
    "another seed": {"temperature": 0.7, "seed": 2},
    "nucleus": {"temperature": 1.5, "seed": 1, "top_p": 0.5},
    "few": {"temperature": 1.5, "seed": 1, "top_k": 5},
    "repetition": {"repetition_penalty": 2.0},
    "presence": {"presence_penalty": 2.0, "temperature": 0.3, "seed": 6},
    "frequency": {"frequency_penalty": 2.0, "temperature": 0.3, "seed": 5},
}


@pytest.fixture(scope="module")
def llama(make_model_dir: Callable[..., Path]) -> LoadedModel:
    """Its answers end by themselves only seldom, so that settings have time to show."""
    return load_model(ModelOptions(model=str(make_model_dir("llama", eos_token_id=[1]))))


@pytest.fixture(params=["rows", "generate"])
def new_engine(
    request: pytest.FixtureRequest, llama: LoadedModel, make_engine: Callable[..., Any]
) -> Callable[[], Any]:
    if request.param == "rows":
        return lambda: make_engine(loaded=llama)
    return lambda: GenerateEngine(llama, Prompts(llama, 64), 64)


def request_of(name: str, max_tokens: int = 20, **sampling: Any) -> Request:
    return Request(name, PROMPT, SamplingParams(**sampling), max_tokens)


def with_stops(alone: dict[str, Finished]) -> list[Request]:
    """One that ends at its eleventh character or before, and one with several texts of which the first never comes."""
    text = alone["greedy"].text
    return [request_of("stopped", stop=(text[10],)), request_of("stops", stop=("never comes", text[14:16]))]


def test_each_request_has_the_answer_that_it_has_alone(new_engine: Callable[[], Any], tools: Any) -> None:
    """Limit, temperature, top_p, top_k, seed, stop texts and penalties, all side by side on one prompt: in one batch,
    or a few at a time in pieces that are cut and continued. And each setting matters: no two answers are alike."""
    requests = [request_of(name, **settings) for name, settings in SETTINGS.items()]
    alone = tools.Driver(new_engine(), at_once=1).run(requests)
    stopped = with_stops(alone)
    alone |= tools.Driver(new_engine(), at_once=1).run(stopped)
    requests = [*stopped, *requests]
    for options in ({"at_once": 64}, {"at_once": 5, "piece": lambda request: 6}):
        assert tools.Driver(new_engine(), **options).run(requests) == alone
    assert len({answer.text for answer in alone.values()}) == len(requests)
    text = alone["greedy"].text
    assert alone["stopped"].text == text[: text.index(text[10])]
    assert alone["stops"].text == text[: text.index(text[14:16])]
    assert [alone[name].finish_reason for name in ("stopped", "stops", "short")] == ["stop", "stop", "length"]
    assert [alone[name].completion_tokens for name in ("short", "long")] == [3, 40]


def test_what_is_cancelled_is_not_kept(new_engine: Callable[[], Any]) -> None:
    """The ids of a prompt that will not run take no memory, whether it was started or not; it may still come again."""
    engine = new_engine()
    requests = [request_of("started"), request_of("waiting")]
    prepared = engine.prepare(requests)
    engine.start(requests[0], (), 5, None)
    for request in requests:
        engine.cancel(request.id)
    assert [event.id for event in engine.poll(1.0)] == ["started"]
    assert engine._prompts._kept == {}
    assert engine.prepare(requests) == prepared
