"""The command, in this process or in one of its own, on an engine that replays recorded lengths."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lengthwise.cli import main, run
from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.pipeline import Pipeline
from lengthwise.types import Capabilities

LENGTHS = {f"r{i}": 1 + i * 37 % 600 for i in range(30)}

Command = Callable[..., int]


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """The command sets up logging for its process; other tests share this one."""
    log = logging.getLogger("lengthwise")
    handlers, level = log.handlers, log.level
    yield
    log.handlers = handlers
    log.setLevel(level)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps({"id": name, "prompt": f"Prompt {name}"}) for name in LENGTHS))
    return path


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> Command:
    """`replayed(*arguments)`: the exit code of the command in this process, where models are recorded lengths."""

    def open_pipeline(settings: run.RunSettings) -> Pipeline:
        config = ReplayConfig(Capabilities(max_running=4), max_tokens=settings.engine.run.max_tokens)
        engine = ReplayEngine(LENGTHS, config)
        return Pipeline(
            engine=engine, predictor=settings.predictor, scheduler=settings.schedule, seed=settings.job.seed
        )

    monkeypatch.setattr(run, "open_pipeline", open_pipeline)
    return lambda *arguments: main([str(argument) for argument in arguments])
