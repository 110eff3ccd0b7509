"""The engine with retries a hundred times as fast, on scripted servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from lengthwise.engines.openai import ServerOptions
from lengthwise.engines.openai.client import Client
from lengthwise.engines.openai.engine import OpenAIEngine
from lengthwise.engines.openai.retry import RetryPolicy
from lengthwise.engines.openai.thread import LoopThread

QUICK = {
    "first_delay_s": 0.01,
    "longest_delay_s": 0.1,
    "shortest_rest_s": 0.01,
    "patience_s": 3.0,
    "budget_per_s": 100.0,
}

OpenEngine = Callable[..., OpenAIEngine]


@pytest.fixture
def open_engine() -> Iterator[OpenEngine]:
    """`open_engine(*urls, key=None, policy={}, **options)`: an engine without the checks of `open`, closed at the
    end."""
    with ExitStack() as stack:

        def open_one(*urls: str, key: str | None = None, policy: dict[str, Any] | None = None, **options: Any):
            asked = ServerOptions(urls, **{"model": "toy", "concurrency": 8, "timeout_s": 5.0, **options})
            chosen = RetryPolicy(**{"max_retries": asked.max_retries, **QUICK, **(policy or {})})
            engine = OpenAIEngine(asked, "toy", Client(key, asked), LoopThread("engine"), chosen)
            stack.callback(engine.close)
            return engine

        yield open_one
