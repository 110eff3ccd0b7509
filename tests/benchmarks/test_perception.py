"""The leader board: cells that resume and never mix, rows over seeds, a page that says all."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lengthwise.benchmarks.perception import cells, running
from lengthwise.benchmarks.perception.board import Row, rows
from lengthwise.benchmarks.perception.cells import Cell, Source
from lengthwise.benchmarks.perception.page import page, transfer_page
from lengthwise.benchmarks.perception.running import Result, Work
from lengthwise.benchmarks.perception.transfer import TransferConfig, transfer
from lengthwise.cli import main
from lengthwise.cli.app import app
from lengthwise.errors import UsageError
from lengthwise.learning.data import read_data
from lengthwise.learning.labels import Target
from lengthwise.learning.training import train

OPENINGS = {"Write a long story about": 250, "What is": 15, "List uses of": 80}


def write_data(path: Path, num: int, seed: int) -> Path:
    """Prompts whose opening says how long the answers are, two answers each."""
    rng = random.Random(seed)
    with path.open("w") as file:
        for i in range(num):
            opening, tokens = rng.choice(list(OPENINGS.items()))
            lengths = [max(1, round(tokens * rng.lognormvariate(0, 0.3))) for _ in range(2)]
            file.write(json.dumps({"prompt": f"{opening} thing {seed}-{i}?", "length": lengths}) + "\n")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("board")
    write_data(made / "train.jsonl", 90, 1)
    write_data(made / "test.jsonl", 60, 2)
    return made


def arguments(folder: Path, *more: str) -> list[str]:
    files = [str(folder / "train.jsonl"), str(folder / "test.jsonl")]
    kinds = ["--kinds", "constant,stack", "--seeds", "0", "--limit", "512"]
    return ["bench", "predictors", *files, *kinds, "--work", str(folder / "work"), *more]


def wait_for_a_predictor(folder: Path) -> Path:
    deadline_s = time.monotonic() + 300
    while time.monotonic() < deadline_s:
        if found := list((folder / "work" / "trained").glob("*.json")):
            return found[0]
        time.sleep(0.05)
    raise AssertionError("nothing was trained in five minutes")


@pytest.fixture(scope="module")
def resumed(folder: Path) -> dict[str, Any]:
    """A run that was killed between training and scoring and started again: what was there, and what came of it."""
    command = [sys.executable, "-m", "lengthwise.cli", *arguments(folder)]
    killed = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    first = wait_for_a_predictor(folder)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    before = first.stat().st_mtime_ns
    done = CliRunner().invoke(app, arguments(folder, "--json", "-o", str(folder / "page.md")))
    assert done.exit_code == 0, done.output
    return {"first": first, "before": before, "line": json.loads(done.stdout.strip().splitlines()[-1])}


def test_a_killed_run_goes_on_where_it_was(resumed: dict[str, Any]) -> None:
    """What was trained is not trained again, and the rest is done."""
    assert resumed["first"].stat().st_mtime_ns == resumed["before"]
    row = resumed["line"]["rows"][0]
    assert (row["name"], row["seeds"]) == ("constant", [0])
    figures = {"mae", "acc_50", "acc_100", "failure_ratio", "kendall_tau", "coverage_90", "us_per_prompt_batch"}
    assert figures | {"us_per_prompt_single", "train_s", "disk_bytes", "memory_mib"} <= set(row["figures"])
    low, high = row["ci95"]["mae"]
    assert low < row["figures"]["mae"] < high


def test_what_is_finished_is_read(resumed: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third run starts no process for finished cells, and says the same."""
    monkeypatch.setattr(running.Work, "_stage", lambda *_: "not to be run")
    again = CliRunner().invoke(app, arguments(folder, "--json"))
    line = json.loads(again.stdout.strip().splitlines()[-1])
    assert line["rows"][0] == resumed["line"]["rows"][0]


def test_a_kind_that_fails_is_a_row_with_its_reason(resumed: dict[str, Any], folder: Path) -> None:
    """The others have their figures; the page says why this one has none, and a failure is not kept for done."""
    (failed,) = [row for row in resumed["line"]["rows"] if row["name"] == "stack"]
    assert "--base" in failed["reason"]
    text = (folder / "page.md").read_text()
    assert "- `stack`: A stack needs predictors" in text
    assert "| `constant` (1 seed) |" in text
    assert not list((folder / "work" / "cells").glob("stack*"))


def test_a_kind_may_be_trained_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the first seed only; others with all."""
    asked: list[Cell] = []

    def run(self: Work, cell: Cell) -> Result:
        asked.append(cell)
        return Result(cell, {}, "not run")

    monkeypatch.setattr(running.Work, "run", run)
    assert main([*arguments(folder), "--seeds", "5,6", "--once", "stack"]) == 1  # nothing was measured
    assert [(cell.kind, cell.seed) for cell in asked] == [("constant", 5), ("stack", 5), ("constant", 6)]


def test_baselines_and_references_stand_in_the_table(resumed: dict[str, Any]) -> None:
    """What every kind must beat, and what one answer says of another, on the same labels."""
    names = {row["name"] for row in resumed["line"]["rows"]}
    assert {"baseline: constant", "baseline: prompt length", "reference: one answer from one answer"} <= names


SOURCE = Source("a.jsonl", None, 512, "0" * 64)
CELL = Cell("text", "max", 0, SOURCE, replace(SOURCE, digest="1" * 64))


@pytest.mark.parametrize(
    "other",
    [
        replace(CELL, kind="constant"),
        replace(CELL, target="answer"),
        replace(CELL, seed=1),
        replace(CELL, settings={"max_terms": 7}),
        replace(CELL, model="another"),
        replace(CELL, train=replace(SOURCE, digest="2" * 64)),
        replace(CELL, test=replace(SOURCE, digest="2" * 64)),
    ],
)
def test_cells_that_differ_have_names_that_differ(other: Cell) -> None:
    """So figures of other settings, data or models are never taken for a cell's own."""
    assert other.name != CELL.name


def test_another_version_is_another_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an older version measured is measured again."""
    name = CELL.name
    monkeypatch.setattr(cells, "__version__", "99")
    assert CELL.name != name


def test_where_a_file_lies_is_no_difference() -> None:
    """The same content elsewhere is the same cell, and a cell is the same after it was written and read."""
    moved = replace(CELL, train=replace(SOURCE, name="elsewhere.jsonl"))
    assert moved.name == CELL.name
    assert Cell.from_json(json.loads(json.dumps(CELL.to_json()))).name == CELL.name


def test_content_counts(folder: Path) -> None:
    """The same rows elsewhere have the same digest; one length that is another gives another."""
    changed = write_data(folder / "changed.jsonl", 90, 1)
    before = Source.of(str(changed), None, None)
    assert before.digest == Source.of(str(folder / "train.jsonl"), None, None).digest
    first, *others = map(json.loads, changed.read_text().splitlines())
    first["length"][0] += 1
    changed.write_text("".join(json.dumps(row) + "\n" for row in (first, *others)))
    assert Source.of(str(changed), None, None).digest != before.digest


def result(seed: int, mae: float, **more: Any) -> Result:
    figures = {"mae": mae, "train_s": 2.0 * seed, "draws": {"mae": [mae - 1, mae, mae + 1]}, "beside": {}, **more}
    return Result(replace(CELL, seed=seed), figures)


def test_a_row_is_the_median_of_its_seeds_with_an_interval_over_all() -> None:
    """The interval spans what prompts and seeds do."""
    (row,) = rows([result(0, 10), result(1, 20), result(2, 60)])
    assert (row.figures["mae"], row.figures["train_s"], row.seeds) == (20, 2, (0, 1, 2))
    low, high = row.ci95["mae"]
    assert 9 <= low < 10
    assert 60 < high <= 61


def test_a_seed_that_failed_is_told(tmp_path: Path) -> None:
    """The row has the seeds that were finished, and the reason for the other."""
    failed = Result(replace(CELL, seed=1), {}, "no memory (exit code 1)")
    (row,) = rows([result(0, 10), failed])
    assert (row.seeds, row.reason) == ((0,), "no memory (exit code 1)")
    assert "no memory" in page([row])


def test_the_papers_row_stands_beside_its_set_only() -> None:
    """Published figures are of one test set and target."""
    alpaca = replace(CELL, test=replace(SOURCE, name="mirror/alpaca-vicuna/eval-1000.jsonl"))
    names = [row.group for row in rows([replace(result(0, 10), cell=alpaca)])]
    assert names == ["kind", "published", "wanted", "wanted"]
    assert [row.group for row in rows([result(0, 10)])] == ["kind"]
    single = replace(result(0, 10), cell=replace(alpaca, target="answer"))
    assert [row.group for row in rows([single])] == ["kind"]


def test_kinds_with_a_language_model_are_marked() -> None:
    """The page tells them from those that need text only."""
    text = page([Row("po", figures={"mae": 1.0}, seeds=(0,), model="m"), Row("text", figures={"mae": 2.0}, seeds=(0,))])
    assert "| `po`* (1 seed) | 1.0 |" in text
    assert "| `text` (1 seed) | 2.0 |" in text


def test_a_work_folder_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    """A file in its place is named."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="another --work"):
        Work(tmp_path / "file")


@pytest.mark.parametrize(
    ("option", "said"), [(("--seeds", "0,x"), "0,x"), (("--kinds", "best"), "best"), (("--target", "least"), "least")]
)
def test_wrong_options_are_named(folder: Path, option: tuple[str, str], said: str) -> None:
    """Before anything is trained."""
    done = CliRunner().invoke(app, [*arguments(folder), *option])
    assert isinstance(done.exception, UsageError)
    assert said in str(done.exception)


def test_transfer_has_lines_for_each_number_of_prompts(folder: Path) -> None:
    """As it is, adapted, and from scratch; more prompts than there are become all that are not held out, which is
    told."""
    predictor = train("text", read_data(folder / "train.jsonl"), Target("answer"))
    data = read_data(write_data(folder / "other.jsonl", 90, 3))
    lines = list(transfer(predictor, data, TransferConfig((22, 1000), num_splits=2)))
    assert [(line.num, line.asked, line.adapted) for line in lines] == [
        (0, 0, True),
        (22, 22, True),
        (22, 22, False),
        (60, 1000, True),
        (60, 1000, False),
    ]
    assert lines[2].samples["kendall_tau"] == []  # 44 answers: too few for a text predictor
    table = transfer_page({"text": lines})
    assert "adapted by 60" in table
    assert "as it is" in table


def test_a_set_too_small_to_split_is_an_error(folder: Path) -> None:
    """With the numbers of it."""
    data = read_data(folder / "test.jsonl")
    predictor = train("constant", data, Target("answer"))
    with pytest.raises(UsageError, match="60 prompts"):
        list(transfer(predictor, data, TransferConfig((50,))))
