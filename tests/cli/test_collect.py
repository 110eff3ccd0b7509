"""`lengthwise collect`: the command, and what becomes of its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lengthwise.cli import main, run
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.saved import load_predictor
from tests.jobs.samples import WatchedEngine

WORDS = ("apples", "bread", "cheese", "dates", "eggs")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    rows = [{"id": f"r{i}", "prompt": f"Write {i} lines about {WORDS[i % 5]}, please."} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(autouse=True)
def _replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_pipeline(settings: run.RunSettings) -> Pipeline:
        engine = WatchedEngine(failing=["r7#t0.7"], max_tokens=settings.engine.run.max_tokens)
        return Pipeline(engine=engine, predictor="none", seed=settings.job.seed)

    monkeypatch.setattr(run, "open_pipeline", open_pipeline)


def collect(prompts: Path, *options: object) -> int:
    return main(["collect", str(prompts), *map(str, options)])


def test_one_command_from_prompts_to_lengths(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The paper's temperatures by default; the line of `--json` counts prompts, answers and what was cut; a failed
    answer is exit code 1; the same command again does nothing and says the same."""
    output = prompts.with_name("l.jsonl")
    assert collect(prompts, "-o", output, "--max-tokens", 50, "--json") == 1
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert rows[0]["temperatures"] == [0, 0.3, 0.5, 0.7]
    assert (said["status"], said["requests"], said["failed"], said["prompts"]) == ("done", 240, 1, 60)
    assert (said["prompts_partial"], said["prompts_failed"], said["answers_kept"]) == (1, 0, 239)
    assert said["answers_cut"] == sum(row["finish_reason"].count("length") for row in rows) > 0
    assert said["answers_tokens"] == sum(n for row in rows for n in row["length"] if n)

    assert collect(prompts, "-o", output, "--max-tokens", 50) == 1
    told = capsys.readouterr().err
    assert "already complete: 60 prompts, 1 of them without some, 239 answers" in told
    assert ", 1 failed (" in told


def test_what_is_collected_can_be_learned_and_scored(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """collect → train → score, with nothing between; the predictor is that of the model that answered, and so is it
    when it is calibrated."""
    output, predictor = prompts.with_name("l.jsonl"), prompts.with_name("predictor")
    collect(prompts, "-o", output, "--max-tokens", 50, "--temperatures", "0,0.7", "--samples", 2, "--quiet")
    assert main(["train", "text", str(output), "-o", str(predictor)]) == 0
    capsys.readouterr()
    assert main(["score", str(predictor), str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_seen"] == 60
    calibrated, model = prompts.with_name("calibrated"), json.loads(output.read_text().splitlines()[0])["model"]
    assert main(["calibrate", str(predictor), str(output), "-o", str(calibrated)]) == 0
    assert model
    assert [load_predictor(folder).model for folder in (predictor, calibrated)] == [model, model]


def test_wrong_temperatures_are_named(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is loaded or written: exit code 2, with the value."""
    output = prompts.with_name("l.jsonl")
    for given, told in (("0,warm", "temperatures is '0,warm'"), ("-1", "temperature is -1"), ("0.3,0.3", "twice")):
        assert collect(prompts, "-o", output, "--temperatures", given) == 2
        assert told in capsys.readouterr().err
    assert not list(prompts.parent.glob("l.jsonl*"))
