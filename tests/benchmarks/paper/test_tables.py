"""Rows, samples and pages of the paper's tables."""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lengthwise.benchmarks.paper import store as storing
from lengthwise.benchmarks.paper.page import page
from lengthwise.benchmarks.paper.published import BLOG, REPOSITORY
from lengthwise.benchmarks.paper.reasons import REASONS, reason_of
from lengthwise.benchmarks.paper.rows import BASE, Known, Row, check_names, chosen, other_rows, paper_rows
from lengthwise.benchmarks.paper.store import Store
from lengthwise.benchmarks.paper.summary import FIGURES, GAIN, PACE, Line, Sampled, summed_up
from lengthwise.benchmarks.paper.tables import Part, measured
from lengthwise.benchmarks.paper.ways import LARGEST_BATCH, PAPER_WAY, VANILLA
from lengthwise.errors import PredictorError, UsageError

SETTINGS = tomllib.loads((Path(__file__).parents[3] / "experiments" / "paper.toml").read_text())
ROWS = paper_rows(Known("text", "max"))
TEXT = next(row for row in ROWS if row.name == "text-max")


def test_settings_are_the_papers() -> None:
    """Those that its file of settings records."""
    scheduling, benchmark = SETTINGS["scheduling"], SETTINGS["benchmark"]
    assert PAPER_WAY.group_size == scheduling["group_size"]
    assert VANILLA.batch_size == PAPER_WAY.batch_size == benchmark["batch_size"]
    assert max(size for _, size in scheduling["sizing"]["sizes"]) == LARGEST_BATCH


def test_rows_have_names_of_their_own() -> None:
    """Within each table; and whatever is published has its row."""
    for rows in (ROWS, other_rows()):
        names = [(row.table, row.name) for row in rows]
        assert len(set(names)) == len(names)
    assert {*BLOG, *REPOSITORY} <= {(row.table, row.name) for row in ROWS}


def test_all_combinations_of_the_three_parts_are_there() -> None:
    """Eight, each another way; the last is the paper's whole."""
    ways = {row.name: row.way for row in ROWS if row.table == "ablation"}
    assert len(set(ways.values())) == 8
    assert ways["binning+fcr+vbs"] == PAPER_WAY
    assert ways["fcr"] == replace(PAPER_WAY, binning=False, vbs=False)


def test_rows_are_chosen_by_table_or_name_and_never_without_the_baseline() -> None:
    """An unknown one is named, with those that there are."""
    assert [row.name for row in chosen(ROWS, ["exact"])] == ["vanilla", "exact"]
    assert len(chosen(ROWS, ["ablation"])) == 9
    with pytest.raises(UsageError, match=r"'best'.*ablation"):
        check_names(ROWS, ["exact", "best"])


def test_reasons_are_of_rows_that_there_are() -> None:
    """None is left behind when a row goes."""
    known = {(row.table, row.name) for row in (*ROWS, *other_rows())}
    assert {(table, name) for _, table, name in REASONS} <= known


def test_whatever_was_published_is_explained() -> None:
    """Beside each figure of the paper stands why ours is another, wherever ours can be had."""
    replayed = {(row.table, row.name) for row in ROWS if not row.known.needs_model}
    assert all(reason_of("recorded", *name) for name in replayed & set(BLOG))
    assert all(reason_of("model", *name) for name in BLOG)
    assert reason_of("model", "group-size", "group-64") is None


# -- samples → lines -------------------------------------------------------------------------------------------


def sample(rate: float) -> dict[str, float]:
    counts = {"average_length": 200.0, "average_length_of_last_attempts": 190.0, "effective_token_ratio": 0.5}
    return {"samples_per_s": rate, **counts, "rerun_ratio": 0.1, "predict_s": 0.0}


def test_of_draws_each_is_compared_with_the_baselines_own() -> None:
    """The median and the middle 95 % of all samples' ratios, however different the samples are."""
    base = Sampled((0, 1), (sample(1), sample(2)), ((sample(1), sample(10)), (sample(3), sample(5))))
    other = Sampled((0, 1), (sample(2), sample(4)), ((sample(2), sample(20)), (sample(6), sample(10))))
    line = summed_up(TEXT, other, base)
    assert line.figures["samples_per_s"] == 5  # of 2, 2, 4, 6, 10, 20
    assert (line.figures[GAIN], line.ci95[GAIN]) == (1, (1, 1))
    assert line.ci95["samples_per_s"][1] > 15


def test_of_runs_the_interval_is_students() -> None:
    """Rates of 1, 2 and 3: 2, and 4.303 standard errors of 1 / sqrt(3) to each side, not below 0. Gains by logarithms:
    twice and eight times as fast is four times."""
    runs = Sampled((0, 1, 2), (sample(1), sample(2), sample(3)), ((), (), ()))
    line = summed_up(BASE, runs, runs)
    assert line.figures["samples_per_s"] == 2
    assert line.ci95["samples_per_s"] == pytest.approx((0, 2 + 4.30265 / math.sqrt(3)), abs=1e-3)
    assert line.figures[GAIN] == 0
    base = Sampled((0, 1), (sample(1), sample(1)), ((), ()))
    twice_and_eight = Sampled((0, 1), (sample(2), sample(8)), ((), ()))
    assert summed_up(TEXT, twice_and_eight, base).figures[GAIN] == pytest.approx(3)


def test_a_machine_that_became_faster_is_no_gain() -> None:
    """Twice the rate where vanilla beside it was twice as fast, too; the rates themselves stay as measured."""
    base = Sampled((0,), ({**sample(1), PACE: 3.0},), ((),))
    line = summed_up(TEXT, Sampled((0,), ({**sample(2), PACE: 6.0},), ((),)), base)
    assert line.figures[GAIN] == pytest.approx(0)
    assert line.figures["samples_per_s"] == 2


def test_one_run_has_no_interval() -> None:
    """Null in JSON, and nothing in brackets on the page."""
    one = Sampled((7,), (sample(2),), ((),))
    line = summed_up(TEXT, one, one)
    assert line.to_json()["ci95"] == dict.fromkeys(FIGURES)
    assert line.to_json()["seeds"] == [7]


def test_a_row_with_fewer_seeds_is_compared_seed_by_seed() -> None:
    """With those of the baseline's seeds that it has."""
    base = Sampled((0, 1), (sample(1), sample(4)), ((), ()))
    assert summed_up(TEXT, Sampled((1,), (sample(8),), ((),)), base).figures[GAIN] == pytest.approx(1)


# -- the parts -------------------------------------------------------------------------------------------------


class Pretended:
    """Rates by row; a row that isn't there can't be had."""

    def __init__(self, rates: dict[str, float]) -> None:
        self.rates = rates

    def sampled(self, row: Row, seeds: list[int]) -> Sampled:
        if row.name not in self.rates:
            raise PredictorError(f"{row.name} needs a model")
        points = tuple(sample(self.rates[row.name]) for _ in seeds)
        return Sampled(tuple(seeds), points, tuple(() for _ in seeds))

    def to_json(self) -> dict[str, Any]:
        split = {"name": "made-up", "sha256_of_content": "0123456789abcdef"}
        return {"train": split, "test": split, "num_requests": 1000, "max_tokens": 512}


@pytest.fixture
def part() -> Part:
    rows = chosen(ROWS, ["vanilla", "pooling", "lora-max", "encoder-max"])
    return measured(
        "recorded", Pretended({"vanilla": 1.5, "lora-max": 3.0, "encoder-max": 2.0}), rows, [0, 1], has_paper=True
    )


def test_a_row_that_cannot_be_had_has_its_reason(part: Part) -> None:
    """And all the others have their figures; what takes an hour to train is trained once."""
    lines = {line.row.name: line for line in part.lines}
    assert lines["pooling"].reason == "pooling needs a model"
    assert lines["pooling"].to_json()["samples_per_s"] is None
    assert lines["lora-max"].figures[GAIN] == pytest.approx(1)
    assert (lines["vanilla"].seeds, lines["encoder-max"].seeds) == ((0, 1), (0,))


def test_the_papers_figures_stand_beside_ours(part: Part) -> None:
    """In JSON by the same names, null where nothing was published."""
    rows = part.to_json()
    assert rows["recorded/predictors/vanilla"]["paper"] == {"samples_per_s": 1.22, "average_length": 377}
    assert rows["recorded/predictors/lora-max"]["repository"]["rerun_ratio"] == 0.165
    assert rows["recorded/predictors/encoder-max"]["paper"] is None


def test_of_other_sets_nothing_was_published() -> None:
    """Vicuna's figures don't stand beside another model's."""
    part = measured("alpaca-eval/a", Pretended({"vanilla": 1.0}), [BASE], [0])
    assert part.to_json()["alpaca-eval/a/predictors/vanilla"]["paper"] is None


def test_the_page_has_tables_reasons_and_what_was_left_out(part: Part) -> None:
    """Ours, the paper's, why a row is missing."""
    text = page([part], {"recorded": "Recorded lengths: made-up"}, ["seed 2"])
    assert "## Recorded lengths: made-up" in text
    (lora,) = [line for line in text.splitlines() if line.startswith("| instruction tuning, max")]
    assert "3.00" in lora
    assert "+100%" in lora
    assert "2.27/s, +86%, length 208" in lora
    assert "- pooling + MLP: no figures here. pooling needs a model" in text
    assert "Left out: seed 2." in text


def test_sets_of_other_models_are_one_table_of_gains() -> None:
    """A line a set, and the geometric mean; a row that is missing somewhere is a dash there."""
    rows = other_rows()[:3]
    parts = [
        measured("alpaca-eval/a", Pretended({"vanilla": 1.0, "ground-truth": 2.0, "text-max": 1.5}), rows, [0]),
        measured("alpaca-eval/b", Pretended({"vanilla": 1.0, "ground-truth": 8.0}), rows, [0]),
    ]
    text = page(parts, {"recorded": "unused"}, [])
    assert "| alpaca-eval/b | 100 | +700% | – |" in text
    assert "| mean of the sets |  | +300% | +50% |" in text


# -- what is kept ----------------------------------------------------------------------------------------------


def test_what_is_finished_is_not_done_again(tmp_path: Path) -> None:
    """By the same key; another key, or another version of the package, is another cell."""
    made: list[int] = []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"samples_per_s": float(len(made))}

    found = [Store(tmp_path).once("row", {"seed": seed}, make)["samples_per_s"] for seed in (0, 0, 1, 0)]
    assert found == [1, 1, 2, 1]


def test_another_version_measures_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of an older one is taken."""
    Store(tmp_path).once("row", {}, lambda: {"old": 1.0})
    monkeypatch.setattr(storing, "__version__", "99")
    assert Store(tmp_path).once("row", {}, lambda: {"new": 1.0}) == {"new": 1.0}


def test_half_a_file_is_no_cell(tmp_path: Path) -> None:
    """Nor is one of another key under the same name: both are made again."""
    store = Store(tmp_path)
    store.once("row", {"seed": 0}, lambda: {"rate": 1.0})
    (cell,) = (tmp_path / "cells").glob("*.json")
    whole = cell.read_text()
    cell.write_text(whole[: len(whole) // 2])
    assert store.once("row", {"seed": 0}, lambda: {"rate": 2.0}) == {"rate": 2.0}
    cell.write_text(json.dumps({**json.loads(whole), "depends_on": {"seed": 5}}))
    assert store.once("row", {"seed": 0}, lambda: {"rate": 3.0}) == {"rate": 3.0}


def test_a_failure_is_not_kept(tmp_path: Path) -> None:
    """Neither figures nor a predictor: the next run tries again."""

    def broken(*_: Path) -> Any:
        raise PredictorError("not now")

    store = Store(tmp_path)
    with pytest.raises(PredictorError):
        store.once("row", {}, broken)
    with pytest.raises(PredictorError):
        store.predictor("text-0", broken)
    assert store.once("row", {}, lambda: {"rate": 1.0}) == {"rate": 1.0}


def test_a_folder_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    """A file in its place is named."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="another --work"):
        Store(tmp_path / "file")


def test_lines_without_figures_are_lines() -> None:
    """Everything that a program reads is there, as null."""
    shown = Line(TEXT, reason="no").to_json()
    assert [shown[name] for name in FIGURES] == [None] * len(FIGURES)
