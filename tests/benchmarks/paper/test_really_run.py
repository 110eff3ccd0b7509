"""A real model, tiny and random, answers each row's schedule anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lengthwise.benchmarks.paper import pace
from lengthwise.benchmarks.paper.pace import Pace
from lengthwise.benchmarks.paper.really_run import RealRuns, RunConfig
from lengthwise.benchmarks.paper.rows import BASE, Known, Row, paper_rows
from lengthwise.benchmarks.paper.store import Store
from lengthwise.benchmarks.paper.tables import Part, measured
from lengthwise.benchmarks.paper.ways import PAPER_WAY
from lengthwise.engines.transformers import ModelOptions, RunOptions
from lengthwise.engines.transformers.loading import load_model
from lengthwise.engines.transformers.open import OpenedRowEngine, engine_for
from lengthwise.errors import UsageError
from lengthwise.types import Request

ROWS = {row.name: row for row in paper_rows(Known("lora", "max"))}
NUM_PROMPTS = 60
CONFIG = RunConfig(max_tokens=24, temperatures=(0.0, 0.7), settings={"lora": {"epochs": 0.1}})


@pytest.fixture(scope="module")
def engine(tiny_llama_dir: Path) -> OpenedRowEngine:
    options = RunOptions(max_tokens=CONFIG.max_tokens, batch_size=32)
    found = engine_for(load_model(ModelOptions(model=str(tiny_llama_dir))), options)
    assert isinstance(found, OpenedRowEngine)
    return found


def runs(folder: Path, engine: OpenedRowEngine, tiny_llama_dir: Path, num: int = NUM_PROMPTS) -> RealRuns:
    topics = [f"subject {number} of {number * 7919 % 1000}" for number in range(num)]
    requests = [Request(f"p{place}", f"write about {topic}") for place, topic in enumerate(topics)]
    return RealRuns(Store(folder), engine, requests, str(tiny_llama_dir), CONFIG)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def found(work: Path, engine: OpenedRowEngine, tiny_llama_dir: Path) -> Part:
    tight = Row("predictors", "tight", "cut at its very prediction", Known("constant", "mean"), PAPER_WAY)
    rows = [*(ROWS[name] for name in ("vanilla", "exact", "po", "pooling", "refill")), tight]
    return measured("model", runs(work, engine, tiny_llama_dir), rows, [0, 1])


def figures(found: Part) -> dict[str, dict[str, float]]:
    return {line.row.name: line.figures for line in found.lines if line.figures}


def test_every_row_delivers_the_models_answers(found: Part, work: Path) -> None:
    """Greedy answers have the tokens that were collected at temperature 0, however they are scheduled: average length
    times token ratio is their mean."""
    by_row = figures(found)
    delivered = {name: one["average_length"] * one["effective_token_ratio"] for name, one in by_row.items()}
    assert len(delivered) >= 4
    assert len({round(tokens, 6) for tokens in delivered.values()}) == 1
    assert by_row["refill"]["effective_token_ratio"] == 1
    assert by_row["exact"]["effective_token_ratio"] >= by_row["vanilla"]["effective_token_ratio"]


def test_figures_of_several_seeds_have_intervals(found: Part) -> None:
    """Each seed has an order of its own."""
    exact = next(line for line in found.lines if line.row.name == "exact")
    assert exact.seeds == (0, 1)
    low, high = exact.ci95["samples_per_s"]
    assert low < exact.figures["samples_per_s"] < high


def test_asking_takes_part_of_the_time(found: Part) -> None:
    """What `po` asks is counted, vanilla asks nothing."""
    assert figures(found)["po"]["predict_s"] > 0
    assert figures(found)["vanilla"]["predict_s"] == 0


def test_a_predictor_that_learns_nothing_here_is_a_row_without_figures(found: Part) -> None:
    """36 prompts are too few for a network on the model's states."""
    (pooling,) = [line for line in found.lines if line.row.name == "pooling"]
    assert "50" in str(pooling.reason)


def test_a_second_run_answers_nothing(
    found: Part, work: Path, engine: OpenedRowEngine, tiny_llama_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was collected and measured is read; a new seed is run."""
    asked: list[int] = []
    real = RealRuns._answers

    def counting(self: RealRuns, requests: list[Request], *more: Any) -> Any:
        asked.append(len(requests))
        return real(self, requests, *more)

    monkeypatch.setattr(RealRuns, "_answers", counting)
    again = runs(work, engine, tiny_llama_dir)
    again.sampled(BASE, [0, 1])
    assert asked == []
    again.sampled(BASE, [2])
    assert asked == [24, 24, 24, 24]  # to warm up, the machine's pace, the run, the pace again


def test_a_disturbance_is_no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pass warms up. Of the last five the median counts; what is older than a few minutes does not."""
    now_s = 0.0
    takes_s = iter([100.0, 1.0, 50.0, 1.0, 2.0, 2.0, 2.0])

    def answer() -> None:
        nonlocal now_s
        now_s += next(takes_s)

    monkeypatch.setattr(pace.time, "perf_counter", lambda: now_s)
    paces = Pace(10, answer)
    assert not paces.is_known()
    assert paces.measured() == 10
    assert paces.is_known()
    assert paces.measured() == (10 + 0.2) / 2
    assert [paces.measured() for _ in range(3)] == [10, 7.5, 5]
    now_s += 1000
    assert not paces.is_known()
    assert paces.measured() == 5


def test_splits_share_no_prompt(found: Part, work: Path, engine: OpenedRowEngine, tiny_llama_dir: Path) -> None:
    """And both are named with what they hold."""
    on = runs(work, engine, tiny_llama_dir)
    learned, held_out = ({one.text for one in split.read().requests} for split in (on.learned, on.held_out))
    assert not learned & held_out
    assert (len(learned), len(held_out)) == (36, 24)
    assert on.to_json()["train"]["sha256_of_content"] == on.learned.digest


def test_too_few_prompts_are_refused(engine: OpenedRowEngine, tiny_llama_dir: Path, tmp_path: Path) -> None:
    """One can't be split."""
    with pytest.raises(UsageError, match="can't be split"):
        runs(tmp_path, engine, tiny_llama_dir, num=1)
