"""`lengthwise estimate`: what a job will take, for people and for programs, and nothing is run for it."""

from __future__ import annotations

import json
import math
import socket
from pathlib import Path
from typing import Any

import pytest

from lengthwise.cli import main
from lengthwise.learning.data_catalogue import CHARACTERS_A_TOKEN
from lengthwise.predictors.constant import ConstantPredictor
from lengthwise.predictors.text.predictor import TextPredictor
from lengthwise.types import Request

SERVED = ("--engine", "openai", "--model", "gpt-x")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent to any server."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def spread(tmp_path: Path) -> Path:
    """A predictor that knows a distribution: 1 to 100 tokens, for any model."""
    folder = tmp_path / "spread"
    ConstantPredictor.fit(range(1, 101)).save(folder)
    return folder


Estimated = dict[str, Any]


def estimate(capsys: pytest.CaptureFixture[str], prompts: Path, *options: object, code: int = 0) -> Estimated:
    assert main(["estimate", str(prompts), *map(str, options), "--json"]) == code
    found: Estimated = json.loads(capsys.readouterr().out)
    return found


def test_tokens_with_an_interval(prompts: Path, spread: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Thirty answers of 50 tokens on average; the interval is theirs and the predictor's, and no narrower than 10 %."""
    found = estimate(capsys, prompts, *SERVED, "--predictor", spread)
    tokens = found["answer_tokens"]
    assert (found["prompts"], found["answers"], found["invalid"], found["unknown"]) == (30, 30, 0, 0)
    assert tokens["expected"] == pytest.approx(30 * 50.5, rel=0.05)
    assert tokens["low"] < 0.9 * tokens["expected"] < 1.1 * tokens["expected"] < tokens["high"]
    assert tokens["limit"] == 30 * 512
    assert found["prompt_tokens_by"] == "characters"
    narrow = estimate(capsys, prompts, *SERVED, "--predictor", spread, "--level-error", 0)["answer_tokens"]
    assert tokens["low"] < narrow["low"] < narrow["high"] < tokens["high"]
    assert found["prompt_tokens"] == sum(math.ceil(len(f"Prompt r{i}") / CHARACTERS_A_TOKEN) for i in range(30))


def test_limits_bound_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row's own limit, else the job's; what will reach it is counted."""
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": "a", "prompt": "x", "max_tokens": 10}\n{"id": "b", "prompt": "x"}')
    found = estimate(capsys, path, *SERVED, "--predictor", "constant:80", "--max-tokens", 100)
    assert found["answer_tokens"]["limit"] == 110
    assert found["answer_tokens"]["expected"] == pytest.approx(90, abs=1)
    assert found["cut_share"] == pytest.approx(0.5)
    assert [one["id"] for one in found["largest"]] == ["b", "a"]
    assert (found["largest"][0]["p99"], found["largest"][0]["max_tokens"]) == (80, 100)


def test_nothing_known_is_said(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a predictor there are bounds and no figure, no time, and a price from bounds."""
    options = ("--input-price", 1, "--output-price", 1e6, "--tokens-per-second", 9)
    found = estimate(capsys, prompts, *SERVED, "--predictor", "none", *options)
    assert found["answer_tokens"] == {"expected": None, "low": 30, "high": 15_360, "interval": 1.0, "limit": 15_360}
    assert (found["time_s"], found["time_by"], found["cut_share"]) == (None, "lengths are not known", None)
    assert found["price"]["expected"] is None
    assert found["price"]["high"] == pytest.approx(15_360, abs=1)
    assert main(["estimate", str(prompts), *SERVED, "--predictor", "none"]) == 0
    page = capsys.readouterr().out
    assert "nothing is known of the answers: 30 to 15,360 in all" in page
    assert "largest" not in page


def test_a_price_from_a_table(prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The model's own price, in its currency, and what a batch costs."""
    table = tmp_path / "prices.toml"
    table.write_text('currency = "EUR"\n[models.gpt-x]\ninput = 0\noutput = 1e6\nbatch_discount = 0.5\n')
    options = (*SERVED, "--predictor", "constant:80", "--price", str(table))
    found = estimate(capsys, prompts, *options)
    assert found["price"]["expected"] == pytest.approx(30 * 80, rel=0.01)
    assert (found["price"]["currency"], found["price"]["batch_discount"]) == ("EUR", 0.5)
    assert main(["estimate", str(prompts), *options]) == 0
    page = capsys.readouterr().out
    assert "EUR 2,400.00" in page
    assert "as a batch EUR 1,200.00" in page


def test_time_of_a_server(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only by a rate that is given, of all answers or of each of several at once; without one, why not."""
    options = (*SERVED, "--predictor", "constant:80")
    assert estimate(capsys, prompts, *options)["time_s"] is None
    assert "give --tokens-per-second" in estimate(capsys, prompts, *options)["time_by"]
    whole = estimate(capsys, prompts, *options, "--tokens-per-second", 240)
    assert whole["time_s"]["expected"] == pytest.approx(10, rel=0.01)
    each = estimate(capsys, prompts, *options, "--tokens-per-second", 24, "--concurrency", 10)
    assert each["time_s"] == whole["time_s"]


def test_time_of_a_machine_that_is_not_here(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Thirty answers of 80 tokens in 30 rows: 80 steps, and the prompts' tokens."""
    steps = ("--step-cost", "0.1,0.001", "--batch-size", 30)
    found = estimate(capsys, prompts, *SERVED, "--predictor", "constant:80", *steps)
    assert found["time_s"]["expected"] == pytest.approx(80 * 0.13 + found["prompt_tokens"] * 0.001, rel=0.01)


def test_the_model_that_is_here(prompts: Path, tiny_llama_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prompts are counted by its tokenizer, its steps are measured, and another time the measurement is kept; without
    one, and told not to measure, the time is not known, and why."""
    options = ("--model", tiny_llama_dir, "--device", "cpu", "--predictor", "constant:80", "--max-tokens", 90)
    assert "leave --no-probe out" in estimate(capsys, prompts, *options, "--no-probe", "--dtype", "bfloat16")["time_by"]
    found = estimate(capsys, prompts, *options)
    assert found["prompt_tokens_by"] == "tokenizer"
    assert found["prompt_tokens"] > 30 * 5
    assert found["time_s"]["expected"] > 0
    assert "measured on this device" in found["time_by"]
    assert found["model"].startswith("llama-")


def test_rows_that_can_t_be_answered(tmp_path: Path, tiny_llama_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row that is no request, and a prompt beyond the model's context, are counted and cost nothing: exit code 1."""
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "x"}\nno json\n' + json.dumps({"prompt": "garden " * 500}) + "\n")
    options = ("--model", tiny_llama_dir, "--predictor", "constant:80", "--no-probe")
    found = estimate(capsys, path, *options, code=1)
    assert (found["prompts"], found["invalid"], found["refused"]) == (1, 1, 1)
    assert found["answer_tokens"]["expected"] == 80


def test_a_predictor_of_another_model(prompts: Path, tmp_path: Path, tiny_llama_dir: Path, capsys: Any) -> None:
    """Refused where the model is named and here; taken at its word where it is not named, and then prompts are not read
    by the tokenizer of the bundled model."""
    requests = [Request(str(i), f"Write {i} words about bread {'and eggs ' * (i % 7)}") for i in range(80)]
    folder = tmp_path / "other"
    TextPredictor.fit(requests, [10 + i for i in range(80)], model="llama-other").save(folder)
    assert main(["estimate", str(prompts), "--model", str(tiny_llama_dir), "--predictor", str(folder)]) == 2
    assert "learned from llama-other" in capsys.readouterr().err
    found = estimate(capsys, prompts, "--predictor", folder)
    assert (found["model"], found["prompt_tokens_by"]) == ("llama-other", "characters")
    assert found["time_s"] is None
    assert main(["estimate", str(prompts), *SERVED, "--predictor", str(folder)]) == 0
    assert "that gpt-x is this model is taken for granted" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", ["", "x" * 1_000_000, "Schreib mir ein Gedicht über Äpfel", "\x00\x1b", "词" * 3000]
)
def test_any_prompt_has_an_estimate(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"prompt": content or "?"}) + "\n")
    found = estimate(capsys, path, "--no-probe", code=1 if len(content) > 2000 else 0)
    assert found["prompts"] + found["refused"] == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--max-tokens", "0"), "max_tokens is 0"),
        (("--level-error", "5"), "level_error is 5"),
        (("--input-price", "1"), "--output-price"),
        (("--price", "gone.toml"), "gone.toml can't be read"),
        (("--price", "p", "--input-price", "1"), "one or the other"),
        (("--input-price", "-1", "--output-price", "1"), "input is -1"),
        (("--step-cost", "fast"), "step_cost is 'fast'"),
        (("--step-cost", "0.1,0.2"), "add --batch-size"),
        (("--step-cost", "-1,0.2", "--batch-size", "4", "--predictor", "constant:9"), "step_fixed_s is -1"),
        (("--tokens-per-second", "0"), "tokens_per_second is 0"),
        (("--concurrency", "0"), "concurrency is 0"),
        (("--batch-size", "0"), "batch_size is 0"),
        (("--predictor", "po"), "nothing is sent"),
        (("--predictor", "gone"), "no predictor 'gone'"),
    ],
)
def test_wrong_options_are_told(
    prompts: Path, options: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, with the value, and nothing on stdout."""
    assert main(["estimate", str(prompts), *SERVED, *options]) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert not said.out
