"""Two small reports, made once a session by the command: of a simulated log and of a run of recorded lengths."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lengthwise.cli import main, run
from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.oracle import OraclePredictor
from lengthwise.protocols import LengthPredictor
from lengthwise.report import pays
from lengthwise.types import Capabilities

NAMES = [f"<script>alert({i})</script>" if i % 3 else f"=1+{i}" for i in range(120)]
LENGTHS = {name: 1 + i * 37 % 300 for i, name in enumerate(NAMES)}

Command = Callable[..., int]


@pytest.fixture(scope="session", autouse=True)
def _log_as_before() -> Iterator[None]:
    """The command sets up logging for its process; other tests share this one."""
    log = logging.getLogger("lengthwise")
    handlers, level = log.handlers, log.level
    yield
    log.handlers = handlers
    log.setLevel(level)


def write_log(path: Path, num: int, requests_per_s: float = 0.9) -> Path:
    """Random arrivals of answers whose lengths spread as those of real ones."""
    rng = np.random.default_rng(0)
    arrivals = np.cumsum(rng.exponential(1 / requests_per_s, num))
    lengths = np.clip(rng.lognormal(4.6, 0.9, num), 1, 512).astype(int)
    rows = (
        {"arrival_s": round(float(at), 3), "prompt_tokens": 20, "output_tokens": int(length)}
        for at, length in zip(arrivals, lengths, strict=True)
    )
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it pays, in fewer places."""
    for name, value in {"LOADS": (0.5, 1.1), "SPREADS": (0.5, 1.0), "NUM_SEEDS": 2, "MAX_REQUESTS": 200}.items():
        monkeypatch.setattr(pays, name, value)


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on a log whose name is not to be trusted."""
    folder = tmp_path_factory.mktemp("simulated")
    log = write_log(folder / "<img src=x onerror=alert(1)>.jsonl", 400)
    options = ["--slots", "4", "--load", "0.95", "--seeds", "2", "--policy", "promise", "--policy", "shortest"]
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_grid(monkeypatch)
        assert main(["simulate", str(log), *options, "--report", str(folder / "out.html")]) == 0
    return folder / "out.html"


class Halved(OraclePredictor):
    """Knows all lengths, and says half of them."""

    def predict(self, requests):
        true = super().predict(requests)
        return type(true).certain(np.maximum(1, true.median // 2))


def replaying(predictor: Callable[[], LengthPredictor], max_running: int = 4) -> Callable[[run.RunSettings], Pipeline]:
    """In place of `open_pipeline`: models are recorded lengths."""

    def open_pipeline(settings: run.RunSettings) -> Pipeline:
        engine = ReplayEngine(LENGTHS, ReplayConfig(Capabilities(max_running=max_running)))
        return Pipeline(engine=engine, predictor=predictor(), scheduler=settings.schedule, clock=engine.clock)

    return open_pipeline


def write_prompts(path: Path, names: list[str]) -> Path:
    path.write_text("\n".join(json.dumps({"id": name, "prompt": f"Prompt {name}"}) for name in names))
    return path


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on a run of requests whose ids are not to be trusted; two of them fail."""
    folder = tmp_path_factory.mktemp("ran")
    prompts = write_prompts(folder / "prompts.jsonl", [*NAMES, "nobody", "knows"])
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(run, "open_pipeline", replaying(lambda: Halved(LENGTHS)))
        arguments = ["run", prompts, "-o", folder / "answers.jsonl", "--report", folder / "out.html"]
        assert main([str(argument) for argument in arguments]) == 1
    return folder / "out.html"
