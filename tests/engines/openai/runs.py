"""Requests, and what becomes of them."""

from __future__ import annotations

import time
from typing import Any

from lengthwise.engines.openai.engine import OpenAIEngine
from lengthwise.pipeline import Pipeline
from lengthwise.types import Completion, Cut, Event, Request


def requests(num: int, **changes: Any) -> list[Request]:
    return [Request(f"r{i}", f"prompt {i}", **changes) for i in range(num)]


def run(engine: OpenAIEngine, asked: list[Request]) -> dict[str, Completion]:
    """Their completions by id; fails if one comes twice or not at all."""
    found: dict[str, Completion] = {}
    for completion in Pipeline(engine=engine, predictor="none").stream(asked):
        assert completion.id not in found, f"{completion.id} came twice"
        found[completion.id] = completion
    assert found.keys() == {request.id for request in asked}
    return found


def events(engine: OpenAIEngine, asked: list[Request], cancelled: tuple[str, ...] = ()) -> dict[str, Event]:
    """Start all, cancel some at once, and wait for the one event that each has."""
    for request in asked:
        engine.start(request, (), request.max_tokens or 512, None)
    for name in cancelled:
        engine.cancel(name)
    return ends(engine, len(asked))


def ends(engine: OpenAIEngine, num: int) -> dict[str, Event]:
    found: dict[str, Event] = {}
    while len(found) < num:
        for event in engine.poll(1.0):
            assert event.id not in found, f"{event.id} ended twice"
            found[event.id] = event
    return found


def wait_until(is_so: Any, patience_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + patience_s
    while not is_so():
        assert time.monotonic() < deadline_s, "it never came to be"
        time.sleep(0.002)


def is_cancelled(event: Event) -> bool:
    return isinstance(event, Cut) and event.reason == "cancelled"
