"""The predictors that need no training, and what names mean."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import lengthwise.predictors.saved as saved
from lengthwise.errors import PredictorError
from lengthwise.predictors.constant import ConstantPredictor
from lengthwise.predictors.oracle import OraclePredictor
from lengthwise.predictors.unknown import UnknownPredictor
from lengthwise.types import Request

A, B, C = Request("a", "one"), Request("b", "two"), Request("c", "three")


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# -- constant --------------------------------------------------------------------------------------------------


def test_constant_learns_the_distribution() -> None:
    """Quantiles of the constant predictor are those of its lengths, within the grid's steps."""
    lengths = np.random.default_rng(0).lognormal(5, 0.8, 5000).clip(1)
    estimates = ConstantPredictor.fit(lengths).predict([A, B])
    for q in (0.1, 0.5, 0.9):
        np.testing.assert_allclose(estimates.quantile(q), np.quantile(lengths, q), rtol=0.05)


def test_constant_counts_censored_lengths_as_longer() -> None:
    """Half of the answers were cut at 100: half of the mass lies at 100 or beyond, none of it is lost."""
    lengths = [*range(10, 60), *[100] * 50]
    predictor = ConstantPredictor.fit(lengths, [length == 100 for length in lengths])
    estimate = predictor.predict([A])
    assert estimate.exceeds(99)[0] == pytest.approx(0.5, abs=0.02)
    assert estimate.exceeds(110)[0] > 0.4
    assert ConstantPredictor.fit(lengths).predict([A]).exceeds(110)[0] < 0.05


def test_constant_of_one_length_is_exact() -> None:
    """constant:N says N of everything."""
    assert saved.load_predictor("constant:120").predict([A, B]).median.tolist() == [120, 120]


@pytest.mark.parametrize("lengths", [[], [0], [5, -1], [math.nan], [math.inf], [[1, 2]]])
def test_constant_refuses_what_is_no_length(lengths: list[float]) -> None:
    """Nothing, zero, negative, NaN and infinite lengths are the caller's error."""
    with pytest.raises(ValueError, match=r"[Ll]ength"):
        ConstantPredictor.fit(lengths)


# -- oracle ----------------------------------------------------------------------------------------------------


def test_oracle_says_the_truth_of_what_it_knows() -> None:
    """Known ids are exact, others unknown."""
    estimates = OraclePredictor({"a": 10, "c": 700}).predict([C, B, A])
    assert estimates.median.tolist() == [700, math.inf, 10]


def test_an_oracle_that_knows_none_of_the_requests_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """It is probably that of another job."""
    OraclePredictor({"a": 10}).predict([A, B])
    assert not caplog.records
    OraclePredictor({"x": 10}).predict([A, B])
    assert "none for the ids of these 2 requests" in caplog.text


def test_an_answers_file_is_an_oracle(tmp_path: Path) -> None:
    """Answers of a former run are read as they are; errors say nothing, cut answers are at least that long."""
    path = lines(
        tmp_path / "answers.jsonl",
        {"id": "a", "text": "x", "finish_reason": "stop", "usage": {"completion_tokens": 33}},
        {"id": "b", "text": "x", "finish_reason": "length", "usage": {"completion_tokens": 512}},
        {"id": "c", "text": "", "finish_reason": "error", "usage": {"completion_tokens": 0}, "error": {}},
        "\n",
    )
    estimates = saved.load_predictor(f"oracle:{path}").predict([A, B, C])
    assert estimates.median.tolist() == [33, math.inf, math.inf]
    assert estimates.capped(512).median.tolist() == [33, 512, 512]
    assert estimates.capped(512).quantile(0.01).tolist() == [33, 512, 512]
    assert estimates.capped(2048).quantile(0.01).tolist() == [33, 2048, 2048]
    assert estimates.exceeds(511)[1] == 1


def test_an_oracle_of_cut_answers_tells_of_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """How many answers it knows from below only, and what stands for their length; without such, not a word."""
    OraclePredictor.from_file(lines(tmp_path / "whole", {"id": "a", "length": 3}))
    assert not caplog.messages
    rows = [{"id": "a", "length": 40, "finish_reason": "length"}, {"id": "b", "length": 3}]
    OraclePredictor.from_file(lines(tmp_path / "cut", *rows))
    (said,) = caplog.messages
    assert "cut: 1 of its 2 answers were cut" in said
    assert "under a higher limit, that limit is taken" in said


def test_the_last_line_of_an_id_counts(tmp_path: Path) -> None:
    """A corrected length replaces the earlier one; ids may be numbers."""
    rows = [{"id": 7, "length": 5, "finish_reason": "length"}, {"id": 7, "length": 9.0}]
    assert saved.load_predictor(f"oracle:{lines(tmp_path / 'l', *rows)}").predict([Request("7", "")]).median == [9]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{broken\n", "line 2 is no JSON"),
        ("[" * 100_000 + "\n", "line 2 is no JSON"),
        ({"length": 3}, "line 2 has no `id`"),
        ([], "line 2 has no `id`"),
        ({"id": "x"}, "line 2 has no length, neither `length` nor `usage.completion_tokens`"),
        ({"id": "x", "length": 0}, "line 2 has the length 0"),
        ({"id": "x", "length": True}, "line 2 has the length True"),
        ({"id": "x", "length": "12"}, "line 2 has the length '12'"),
        ('{"id": "x", "length": NaN}\n', "line 2 has the length nan"),
        ({"id": "x", "usage": 5}, "line 2 has no length, neither `length` nor `usage.completion_tokens`"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, row: object, said: str) -> None:
    """A line that is no length is refused with file, line and value."""
    path = lines(tmp_path / "lengths.jsonl", {"id": "a", "length": 3}, row)
    with pytest.raises(PredictorError, match="lengths.jsonl, " + said.replace("'", ".")):
        OraclePredictor.from_file(path)


def test_files_that_are_no_oracle(tmp_path: Path) -> None:
    """Missing, empty, binary files and folders are refused."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").write_text("\n\n")
    for name in ("missing", "empty", "binary", "."):
        with pytest.raises(PredictorError):
            OraclePredictor.from_file(tmp_path / name)


# -- names -----------------------------------------------------------------------------------------------------


def test_none_knows_nothing() -> None:
    """`none` is the predictor of arrival order."""
    assert isinstance(saved.load_predictor("none"), UnknownPredictor)


@pytest.mark.parametrize(
    "name", ["constant:", "constant:x", "constant:0", "constant:nan", "oracle:", "no/such", "", "text"]
)
def test_a_wrong_name_is_refused_with_a_way_out(name: str) -> None:
    """A name that means nothing says what would."""
    with pytest.raises(PredictorError, match=r"constant:|saved predictor"):
        saved.load_predictor(name)


def test_the_default_is_for_its_own_model_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` is the shipped predictor for the model that it learned from; for any other, and without one, nothing."""
    monkeypatch.setattr(saved, "PREDICTOR_DIR", tmp_path)
    assert isinstance(saved.resolve("auto", "mine"), UnknownPredictor)
    ConstantPredictor.fit([5, 6], model="mine").save(tmp_path)
    assert isinstance(saved.resolve("auto", "mine"), ConstantPredictor)
    assert isinstance(saved.resolve("auto", "other"), UnknownPredictor)
