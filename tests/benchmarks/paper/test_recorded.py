"""Recorded lengths, replayed: what is known of them decides, and nothing of another run is taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lengthwise.benchmarks.paper.recorded import RecordedLengths, ReplayConfig
from lengthwise.benchmarks.paper.rows import BASE, Known, Row, other_rows, paper_rows
from lengthwise.benchmarks.paper.store import Store
from lengthwise.benchmarks.paper.summary import GAIN, Line
from lengthwise.benchmarks.paper.tables import Part, measured
from lengthwise.benchmarks.perception.cells import Source
from lengthwise.costs import StepCost
from lengthwise.errors import InputError, PredictorError
from tests.benchmarks.paper.made_up import write_lengths

ROWS = {row.name: row for row in (*other_rows(), *paper_rows(Known("text", "max")))}
MIRROR = Path(__file__).parents[3].parent / "shared" / "data"


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    folder = tmp_path_factory.mktemp("recorded")
    made = {name: write_lengths(folder / f"{name}.jsonl", num, num) for name, num in (("train", 90), ("test", 120))}
    return {name: Source.of(str(path), None, 512) for name, path in made.items()}


def lengths(sets: dict[str, Source], folder: Path, **changes: object) -> RecordedLengths:
    return RecordedLengths(Store(folder), sets["train"], sets["test"], replace(ReplayConfig(num_draws=4), **changes))


@pytest.fixture(scope="module")
def found(sets: dict[str, Source], tmp_path_factory: pytest.TempPathFactory) -> Part:
    rows = [ROWS[name] for name in ("vanilla", "ground-truth", "exact", "text-max", "text-own", "pooling", "refill")]
    return measured("recorded", lengths(sets, tmp_path_factory.mktemp("work")), rows, [0, 1])


def line(found: Part, name: str) -> Line:
    return next(line for line in found.lines if line.row.name == name)


def test_knowing_more_gains_more(found: Part) -> None:
    """Nothing, words, the longest of two samples, the very length."""
    gains = [line(found, name).figures[GAIN] for name in ("vanilla", "text-max", "ground-truth", "exact")]
    assert gains == sorted(gains)
    assert gains[0] == 0 < gains[1]


def test_intervals_hold_the_median(found: Part) -> None:
    """Of rates and gains, of all draws of both seeds."""
    for name in ("samples_per_s", GAIN, "average_length"):
        low, high = line(found, "exact").ci95[name]
        assert low < line(found, "exact").figures[name] < high


def test_answers_are_the_first_sample_in_any_order(sets: dict[str, Source], tmp_path: Path) -> None:
    """What is delivered are the recorded tokens: their mean is average length times token ratio."""
    mean = sets["test"].read().lengths[:, 0].mean()
    for name in ("vanilla", "exact", "refill"):
        for one in lengths(sets, tmp_path).sampled(ROWS[name], [0, 1]).points:
            assert one["average_length"] * one["effective_token_ratio"] == pytest.approx(mean)


def test_predictors_that_look_into_the_model_stand_elsewhere(found: Part) -> None:
    """The row says where."""
    assert "really run" in str(line(found, "pooling").reason)


def test_a_set_can_teach_itself(found: Part) -> None:
    """From its other prompts, each held out once: here that is as good as another set."""
    assert line(found, "text-own").figures[GAIN] > 0.8 * line(found, "text-max").figures[GAIN]


def test_a_second_run_reads_what_is_there(sets: dict[str, Source], tmp_path: Path, monkeypatch) -> None:
    """Without replaying; with another cost it is replayed anew, and the figures are others."""
    first = lengths(sets, tmp_path).sampled(BASE, [0])
    files = len(list((tmp_path / "cells").iterdir()))
    with monkeypatch.context() as patch:
        patch.setattr(RecordedLengths, "_cell", lambda *_: pytest.fail("it was there"))
        assert lengths(sets, tmp_path).sampled(BASE, [0]) == first
    twice = lengths(sets, tmp_path, cost=StepCost(0.05, 0.0007)).sampled(BASE, [0])
    assert twice.points[0]["samples_per_s"] == pytest.approx(first.points[0]["samples_per_s"] / 2)
    assert len(list((tmp_path / "cells").iterdir())) == files + 1


def test_a_killed_training_leaves_no_predictor(sets: dict[str, Source], tmp_path: Path) -> None:
    """Half a folder beside its place is not taken for one, and a whole one is."""
    on = lengths(sets, tmp_path)
    on.sampled(ROWS["text-max"], [0])
    (folder,) = (tmp_path / "predictors").iterdir()
    folder.rename(folder.with_name(f".1-{folder.name}"))
    again = lengths(sets, tmp_path)
    again.sampled(Row("predictors", "other", "another way", ROWS["text-max"].known, BASE.way), [0])
    assert folder.is_dir()


def test_prompts_that_were_learned_from_are_left_out(sets: dict[str, Source], tmp_path: Path) -> None:
    """They are counted; where none is left, both sets are named."""
    lines = [Path(one.name).read_text().splitlines() for one in (sets["train"], sets["test"])]
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text("\n".join([*lines[0][:5], *lines[1]]))
    on = RecordedLengths(Store(tmp_path), sets["train"], Source.of(str(mixed), None, 512), ReplayConfig())
    assert (len(on.data), on.num_left_out) == (120, 5)
    with pytest.raises(InputError, match="give another set"):
        RecordedLengths(Store(tmp_path), sets["train"], sets["train"], ReplayConfig()).sampled(BASE, [0])


def test_too_little_to_learn_from_is_the_rows_reason(sets: dict[str, Source], tmp_path: Path) -> None:
    """And raised where there is no table to put it into."""
    short = tmp_path / "short.jsonl"
    short.write_text("\n".join(Path(sets["train"].name).read_text().splitlines()[:5]))
    on = RecordedLengths(Store(tmp_path), Source.of(str(short), None, 512), sets["test"], ReplayConfig())
    with pytest.raises(PredictorError):
        on.sampled(ROWS["text-max"], [0])
    part = measured("recorded", on, [BASE, ROWS["text-max"]], [0])
    assert part.lines[1].reason


@pytest.mark.skipif(not (MIRROR / "alpaca-vicuna").is_dir(), reason="the recorded lengths of Vicuna are not here")
def test_the_papers_waste_is_reproduced(tmp_path: Path) -> None:
    """Of Vicuna's recorded lengths vanilla batches of 16 waste as much as the paper's repository reports, and those
    sorted by the longest sample, with its scheduling, too."""
    train, test = (Source.of(f"alpaca-vicuna/{name}", MIRROR, None) for name in ("train", "eval-1000"))
    on = RecordedLengths(Store(tmp_path), train, test, ReplayConfig(num_draws=1))
    vanilla, truth = (on.sampled(ROWS[name], [0, 1, 2]).points for name in ("vanilla", "ground-truth"))
    assert np.mean([one["effective_token_ratio"] for one in vanilla]) == pytest.approx(0.339, abs=0.02)
    assert np.mean([one["effective_token_ratio"] for one in truth]) == pytest.approx(0.616, abs=0.03)
