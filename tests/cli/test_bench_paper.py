"""`lengthwise bench paper`: one JSON line, a page, and a run that goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lengthwise.benchmarks.paper.recorded import RecordedLengths
from lengthwise.benchmarks.paper.rows import Known, Row, other_rows, paper_rows
from lengthwise.benchmarks.paper.scale import FULL, QUICK
from lengthwise.benchmarks.paper.summary import FIGURES
from lengthwise.cli import main
from lengthwise.cli.app import app
from tests.benchmarks.paper.made_up import write_lengths

RECORDED_ROWS = "ground-truth,text-max,pooling"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("paper")
    for name, num in (("train", 90), ("test", 60), ("other", 60)):
        write_lengths(made / f"{name}.jsonl", num, num)
    prompts = [{"prompt": f"write about subject {number} of {number * 7919 % 1000}"} for number in range(30)]
    (made / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    return made


def arguments(folder: Path, *more: str) -> list[str]:
    sets = ["--train", str(folder / "train.jsonl"), "--test", str(folder / "test.jsonl")]
    others = ["--lengths", str(folder / "other.jsonl"), "--work", str(folder / "work")]
    return ["bench", "paper", "--quick", *sets, *others, *more]


@pytest.fixture(scope="module")
def line(folder: Path, tiny_llama_dir: Path) -> dict[str, Any]:
    """All three parts, with a tiny model."""
    model = ["--model", str(tiny_llama_dir), "--prompts", str(folder / "prompts.jsonl"), "--max-tokens", "12"]
    chosen = ["--rows", RECORDED_ROWS, "--json", "-o", str(folder / "page.md")]
    done = CliRunner().invoke(app, arguments(folder, *model, *chosen))
    assert done.exit_code == 0, (done.output, done.exception)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def test_each_row_has_its_figures_with_intervals(line: dict[str, Any], folder: Path) -> None:
    """By part, table and name, also of the other sets; null where a row can't be had, with the reason."""
    other = str(folder / "other.jsonl")
    parts = {"recorded": 4, other: 3, "model": 4}
    assert {name: sum(key.startswith(f"{name}/") for key in line["rows"]) for name in parts} == parts
    text = line["rows"]["recorded/predictors/text-max"]
    assert {*FIGURES, "ci95", "paper", "repository", "why", "title", "seeds", "reason"} <= set(text)
    for name in FIGURES:
        low, high = text["ci95"][name]
        assert low <= text[name] <= high
    pooling = line["rows"]["recorded/predictors/pooling"]
    assert pooling["samples_per_s"] is None
    assert "weights" in pooling["reason"]


def test_vanilla_gains_nothing_over_itself(line: dict[str, Any]) -> None:
    """In every part."""
    gains = [row["gain_vs_vanilla"] for key, row in line["rows"].items() if key.endswith("/vanilla")]
    assert gains == [0, 0, 0]


def test_the_papers_figures_stand_where_they_belong(line: dict[str, Any]) -> None:
    """Beside a model that is run, but not beside lengths that are not Vicuna's."""
    assert line["rows"]["model/predictors/ground-truth"]["paper"]["average_length"] == 201
    assert line["rows"]["recorded/predictors/ground-truth"]["paper"] is None


def test_what_figures_rest_on_is_named(line: dict[str, Any]) -> None:
    """Splits by digest, settings, versions, machine, and what the quick form leaves out."""
    assert (line["bench"], line["quick"], line["seeds"]) == ("paper", True, [0])
    assert line["left_out"] == list(QUICK.left_out)
    assert {"versions", "machine", "date"} <= set(line)
    assert len(line["parts"]["model"]["train"]["sha256_of_content"]) == 64
    assert line["parts"]["recorded"]["cost"]["step_fixed_s"] == 0.025


def test_the_page_is_written(line: dict[str, Any], folder: Path) -> None:
    """With a section a part."""
    text = (folder / "page.md").read_text()
    assert [part in text for part in ("## Recorded lengths", "## Other models' lengths", "## Really run")] == [True] * 3


def test_a_second_run_measures_nothing(line: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says the same of what it was asked for."""
    monkeypatch.setattr(RecordedLengths, "_cell", lambda *_: pytest.fail("it was there"))
    again = CliRunner().invoke(app, arguments(folder, "--parts", "recorded", "--rows", RECORDED_ROWS, "--json"))
    rows = json.loads(again.stdout.strip().splitlines()[-1])["rows"]
    assert rows == {key: row for key, row in line["rows"].items() if key.startswith("recorded/")}


def test_an_interrupted_run_says_where_it_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And ends as interrupted commands do; what was finished before stays."""

    def stopped(self: RecordedLengths, row: Row, seed: int) -> dict[str, Any]:
        if row.name == "exact":
            raise KeyboardInterrupt
        return real(self, row, seed)

    real = RecordedLengths._cell
    monkeypatch.setattr(RecordedLengths, "_cell", stopped)
    work = folder / "stopped"
    assert main(arguments(folder, "--parts", "recorded", "--rows", "exact", "--work", str(work))) == 130
    assert "goes on from there" in capsys.readouterr().err
    assert len(list((work / "cells").glob("recorded-vanilla-*.json"))) == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--parts", "recorded,best"), "'best'"),
        (("--rows", "fastest"), "'fastest'"),
        (("--seeds", "0,x"), "'0,x'"),
        (("--parts", "recorded", "--test", "nowhere.jsonl"), "lengthwise data list"),
        (("--parts", "recorded", "--cost", "nowhere.json"), "nowhere.json"),
        (("--settings", "nowhere.toml"), "nowhere.toml"),
    ],
)
def test_bad_input_is_named(folder: Path, more: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is measured, in one sentence."""
    assert main(arguments(folder, *more)) in (1, 2)
    assert said in capsys.readouterr().err


def test_a_model_without_rows_of_its_own_is_refused(
    folder: Path, model_dir: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Batches that can't be cut can't be scheduled as in the paper."""
    assert main(arguments(folder, "--parts", "model", "--model", str(model_dir("mamba")))) == 2
    assert "`generate` only" in capsys.readouterr().err


def test_the_quick_form_leaves_out_what_it_says() -> None:
    """The encoder, ablations of the model, the sets' own answers; everything is in the full form."""
    rows = paper_rows(Known("text", "max"))
    assert {row.table for row in QUICK.kept("model", rows)} == {"predictors"}
    assert {row.known.kind for row in rows} - {row.known.kind for row in QUICK.kept("recorded", rows)} == {"encoder"}
    assert "text-own" not in {row.name for row in QUICK.kept("others", other_rows())}
    assert FULL.kept("recorded", rows) == rows
