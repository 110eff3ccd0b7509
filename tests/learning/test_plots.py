"""Plots of a score: valid pictures that say what they show, also of odd scores."""

from __future__ import annotations

import builtins
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from lengthwise.cli.app import app
from lengthwise.errors import UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.learning.data import LengthData
from lengthwise.learning.labels import Target, label_one
from lengthwise.learning.plots import MAX_SHAPES, Subject, _share_below, save_plots
from lengthwise.learning.scoring import QUANTILES, Scored, compare
from lengthwise.predictors.constant import ConstantPredictor
from lengthwise.types import Request

pytest.importorskip("matplotlib")
SUBJECT = Subject("my predictor", "my data", "max")


def scored(num: int = 200, limit: int | None = None, cut_above: float = np.inf) -> Scored:
    """A constant's distribution and true lengths from it."""
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.normal(4, 0.8, (num, 1))).round().clip(1)
    data = LengthData(tuple(Request(str(i), "p") for i in range(num)), lengths, lengths > cut_above).within(limit)
    predictor = ConstantPredictor.fit(np.exp(rng.normal(4, 0.8, 4_000)))
    return compare(predictor.predict(data.requests), label_one(data, Target(), 0), limit)


def text_of(path: Path) -> str:
    """All words of an SVG; raises where it is none."""
    return " ".join(" ".join(element.itertext()) for element in ET.parse(path).iter() if element.tag.endswith("text"))


def test_three_pictures_with_titles_and_units(tmp_path: Path) -> None:
    """Each says what it shows, of what, and in which unit."""
    paths = save_plots(scored(), SUBJECT, tmp_path / "new" / "plots")
    assert sorted(path.name for path in paths) == ["error.svg", "predicted.svg", "reliability.svg"]
    said = {path.stem: text_of(path) for path in paths}
    assert all("my predictor, target max, my data" in text for text in said.values())
    assert "true length, tokens" in said["predicted"]
    assert "within 50 tokens" in said["predicted"]
    assert "stated chance" in said["reliability"]
    assert "observed share of 200 prompts" in said["reliability"]
    assert "error, tokens" in said["error"]


def test_the_same_score_gives_the_same_files(tmp_path: Path) -> None:
    """No date and no chance in them, so that they can be kept under version control."""
    first, second = (save_plots(scored(), SUBJECT, tmp_path / name) for name in ("one", "two"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_cut_answers_are_marked(tmp_path: Path) -> None:
    """What is "at least" looks otherwise, and the legend says so; without cut ones it doesn't speak of them."""
    marked, plain = (
        save_plots(one, SUBJECT, tmp_path / str(i)) for i, one in enumerate((scored(cut_above=90), scored()))
    )
    assert "at least so long" in text_of(marked[0])
    assert "at least so long" not in text_of(plain[0])


def test_many_points_are_one_picture(tmp_path: Path) -> None:
    """A file of 5,000 prompts stays small."""
    (path, *_) = save_plots(scored(MAX_SHAPES + 3_000), SUBJECT, tmp_path)
    assert path.stat().st_size < 400_000
    assert "<image" in path.read_text()


def test_the_reliability_of_a_right_predictor_lies_on_the_line() -> None:
    """Shares at or below each quantile are about what is stated, also where long answers are cut."""
    for one in (scored(4_000), scored(4_000, limit=150)):
        held = _share_below(one, np.arange(4_000))
        below = np.array(QUANTILES) < 0.85  # beyond it all are cut
        assert np.abs(held - QUANTILES)[below].max() < 0.05


def test_an_answer_cut_below_a_quantile_says_nothing_of_it() -> None:
    """It may have gone on beyond, or not: it is left out there, and counts as longer where it is."""
    labels, is_cut = np.array([10.0, 15.0, 30.0]), np.array([True, False, False])
    quantiles = np.full((19, 3), 20.0)
    quantiles[0] = 5.0
    one = Scored(labels, is_cut, labels, np.ones(3, bool), quantiles)
    assert _share_below(one, np.arange(3))[:2].tolist() == [0.0, 0.5]


@pytest.mark.parametrize("num", [1, 3])
def test_a_score_of_few_prompts_is_drawn(tmp_path: Path, num: int) -> None:
    """Nothing is assumed of how many there are."""
    assert len(save_plots(scored(num), SUBJECT, tmp_path)) == 3


def test_where_nothing_is_known_there_is_no_reliability(tmp_path: Path) -> None:
    """And no stale or empty picture of it."""
    data = LengthData((Request("0", "p"), Request("1", "q")), np.array([[3.0], [4.0]]), np.zeros((2, 1), bool))
    unknown = compare(LengthEstimates.unknown(2), label_one(data, Target(), 0), None)
    assert sorted(path.name for path in save_plots(unknown, SUBJECT, tmp_path)) == ["error.svg", "predicted.svg"]


def test_without_matplotlib_the_way_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    real = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=re.escape("pip install lengthwise[plot]")):
        save_plots(scored(), SUBJECT, tmp_path)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """A file in its place."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="another --plot"):
        save_plots(scored(), SUBJECT, tmp_path / "file")


def run_score(folder: Path, *more: str) -> Any:
    rows: Sequence[dict[str, Any]] = [{"prompt": f"What is {i}?", "length": 10 + i % 7} for i in range(60)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return CliRunner().invoke(app, ["score", "constant:12", str(folder / "data.jsonl"), *more])


def test_the_command_plots(tmp_path: Path) -> None:
    """`score --plot DIR`: pictures beside the figures, and JSON stays alone on stdout."""
    done = run_score(tmp_path, "--plot", str(tmp_path / "plots"), "--json")
    assert done.exit_code == 0, done.output
    line = json.loads(done.stdout)
    wanted = {"mae", "acc_50", "acc_100", "failure_ratio", "kendall_tau", "coverage_90"}
    timed = {"us_per_prompt_batch", "us_per_prompt_single"}
    assert wanted | timed <= set(line)
    assert wanted | timed <= set(line["ci95"])
    assert line["memory_mib"] >= 0
    assert (tmp_path / "plots" / "predicted.svg").is_file()
