"""Calibration: stated chances become true ones, for other models too, and stay one distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from lengthwise.errors import PredictorError
from lengthwise.estimates import LengthEstimates
from lengthwise.learning.calibration import calibrate
from lengthwise.learning.data import LengthData, read_data
from lengthwise.learning.labels import Target
from lengthwise.learning.training import train
from lengthwise.predictors.calibrated import CalibratedPredictor
from lengthwise.predictors.constant import ConstantPredictor
from lengthwise.predictors.oracle import OraclePredictor
from lengthwise.predictors.saved import load_predictor
from lengthwise.predictors.survival import kaplan_meier_median
from lengthwise.predictors.unknown import UnknownPredictor
from lengthwise.types import Completion, Request

MIRROR = Path(__file__).parents[2].parent / "shared" / "data"
needs_mirror = pytest.mark.skipif(not MIRROR.is_dir(), reason=f"no {MIRROR}")

ANSWER = Target("answer")
LEARNED = np.random.default_rng(0).lognormal(4.5, 0.5, 3000).clip(1)


def requests(num: int) -> tuple[Request, ...]:
    return tuple(Request(str(i), f"prompt {i}") for i in range(num))


def tails(estimates: LengthEstimates, lengths: np.ndarray) -> tuple[float, float]:
    """Shares below and above the 90 % interval."""
    below, above = lengths < estimates.quantile(0.05), lengths > estimates.quantile(0.95)
    return float(below.mean()), float(above.mean())


class _Overconfident:
    """Says of every answer that it has 30 to 60 tokens, wherever it ends."""

    model: str | None = "m"

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        return ConstantPredictor.fit(np.linspace(30, 60, 300)).predict(requests)

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        pass


@pytest.mark.parametrize("inner", [ConstantPredictor.fit(LEARNED), _Overconfident()], ids=["good", "overconfident"])
@pytest.mark.parametrize(("centre", "spread"), [(4.5, 0.5), (6.5, 0.3), (3.5, 1.0)])
def test_100_answers_make_intervals_true(inner: ConstantPredictor, centre: float, spread: float) -> None:
    """Over 60 draws of 100 answers, the 90 % interval holds 88 to 92 %, and each tail 3 to 7, whatever was learned."""
    rng = np.random.default_rng(1)
    fresh = rng.lognormal(centre, spread, 2000).clip(1).round()
    found = []
    for _ in range(60):
        known = rng.lognormal(centre, spread, 100).clip(1).round()
        predictor = CalibratedPredictor.fit(inner, requests(100), known)
        found.append(tails(predictor.predict(requests(1))[np.zeros(2000, int)], fresh))
    below, above = np.mean(found, axis=0)
    assert 0.03 <= below <= 0.07
    assert 0.03 <= above <= 0.07
    assert 0.88 <= 1 - below - above <= 0.92


def test_what_is_right_is_left_alone() -> None:
    """With many answers a predictor that was right stays as it was, within a few per cent."""
    inner = ConstantPredictor.fit(LEARNED)
    predictor = CalibratedPredictor.fit(inner, requests(3000), np.random.default_rng(2).permutation(LEARNED))
    for q in (0.05, 0.25, 0.5, 0.75, 0.95):
        np.testing.assert_allclose(
            predictor.predict(requests(1)).quantile(q), inner.predict(requests(1)).quantile(q), rtol=0.05
        )


def test_cut_answers_count_as_longer() -> None:
    """With two fifths of the answers cut, the chance to pass the cut is right."""
    lengths = np.random.default_rng(3).lognormal(4.5, 0.5, 1000).clip(1)
    cut = 100.0
    is_cut = lengths >= cut
    predictor = CalibratedPredictor.fit(
        ConstantPredictor.fit(LEARNED / 2), requests(1000), np.minimum(lengths, cut), is_cut
    )
    assert predictor.predict(requests(1)).exceeds(cut - 1)[0] == pytest.approx(is_cut.mean(), abs=0.03)


@pytest.mark.parametrize("num_cut", [100, 81])
def test_answers_that_were_cut_are_no_evidence_of_their_length(num_cut: int) -> None:
    """Where fewer than 20 answers ended by themselves nothing is calibrated, and it is said why."""
    is_cut = np.arange(100) < num_cut
    with pytest.raises(PredictorError, match=f"100 answers, {num_cut} of them cut .*; 20 that were not cut are needed"):
        CalibratedPredictor.fit(ConstantPredictor.fit(LEARNED), requests(100), np.full(100, 40.0), is_cut)


class _TwoKinds:
    """Rightly says that prompts of even number have answers around 60 tokens, the others around 600."""

    model: str | None = None

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        kinds = [ConstantPredictor.fit(_around(centre, 3000)).predict(requests[:1]) for centre in (60, 600)]
        return LengthEstimates.concatenate([kinds[int(request.id) % 2] for request in requests])

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        pass


def _around(centre: float, num: int) -> np.ndarray:
    return np.random.default_rng(0).lognormal(np.log(centre), 0.4, num).clip(1)


@pytest.mark.parametrize("cut", [36, 90, 400])
def test_cut_answers_do_not_make_estimates_shorter(cut: float) -> None:
    """A predictor that was right stays so, within a tenth, wherever a limit cut the answers: for prompts whose answers
    ended, and for those of which nearly all were cut."""
    inner, rng = _TwoKinds(), np.random.default_rng(7)
    lengths = np.array([60, 600])[np.arange(1000) % 2] * rng.lognormal(0, 0.4, 1000)
    fitted = CalibratedPredictor.fit(inner, requests(1000), np.minimum(lengths, cut), lengths >= cut)
    np.testing.assert_allclose(fitted.predict(requests(2)).median, inner.predict(requests(2)).median, rtol=0.1)


def test_the_stated_factor_is_the_effect() -> None:
    """What the card says of the median is what became of it; it counts the answers, and is kept."""
    inner = ConstantPredictor.fit(LEARNED)
    lengths = np.random.default_rng(6).permutation(LEARNED)[:100] * 3
    fitted = CalibratedPredictor.fit(inner, requests(100), lengths, lengths > 400)
    effect = fitted.predict(requests(1)).median[0] / inner.predict(requests(1)).median[0]
    assert fitted.card["length_factor"] == pytest.approx(effect, rel=0.01)
    assert (fitted.card["num_answers"], fitted.card["num_cut"]) == (100, (lengths > 400).sum())


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=30))
def test_the_median_of_what_was_not_cut_is_the_ordinary_one(values: list[float]) -> None:
    """Kaplan and Meier's median, without censored values."""
    assert kaplan_meier_median(values, np.zeros(len(values), bool)) == pytest.approx(np.median(values), abs=1e-9)


def test_a_median_that_nobody_reached_is_unknown() -> None:
    """More than half cut below all that ended: it lies somewhere beyond."""
    assert kaplan_meier_median([1, 2, 3, 3, 3], [False, False, True, True, True]) == np.inf
    assert kaplan_meier_median([1, 2, 3, 3, 3], [True, True, False, False, False]) == 3


@given(st.floats(1, 3000), st.floats(1, 3000), st.floats(1, 4000))
def test_going_on_stays_coherent(first: float, second: float, asked: float) -> None:
    """P(> m | > a) = P(> b | > a) · P(> m | > b) for a ≤ b ≤ m, as for any estimate."""
    a, b, m = sorted((first, second, asked))
    known = _OVERCONFIDENT_CALIBRATED.predict(requests(1))
    through = known.given(a).exceeds(b) * known.given(b).exceeds(m)
    np.testing.assert_allclose(known.given(a).exceeds(m), through, rtol=1e-3, atol=1e-6)
    assert known.given(a).capped(10_000).median[0] > a


_OVERCONFIDENT_CALIBRATED = CalibratedPredictor.fit(_Overconfident(), requests(100), LEARNED[:100])


def test_it_is_saved_with_its_inner_predictor(tmp_path: Path) -> None:
    """A folder in a folder; the model is that of the answers."""
    predictor = CalibratedPredictor.fit(ConstantPredictor.fit(LEARNED), requests(100), LEARNED[:100] * 3, model="other")
    predictor.save(tmp_path)
    loaded = load_predictor(tmp_path)
    assert isinstance(loaded, CalibratedPredictor)
    assert loaded.model == "other"
    assert loaded.card == predictor.card
    np.testing.assert_array_equal(loaded.predict(requests(3)).survival, predictor.predict(requests(3)).survival)


@pytest.mark.parametrize("name", ["predictor.json", "arrays.safetensors", "inner/predictor.json"])
def test_a_damaged_folder_is_refused(tmp_path: Path, name: str) -> None:
    """Each file missing or cut: a PredictorError."""
    CalibratedPredictor.fit(ConstantPredictor.fit(LEARNED), requests(100), LEARNED[:100]).save(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(PredictorError):
        load_predictor(tmp_path)
    path.unlink()
    with pytest.raises(PredictorError):
        load_predictor(tmp_path)


def test_a_folder_inside_itself_is_refused(tmp_path: Path) -> None:
    """Calibrations don't nest, so a link to itself ends in a sentence."""
    CalibratedPredictor.fit(ConstantPredictor.fit(LEARNED), requests(100), LEARNED[:100]).save(tmp_path)
    (tmp_path / "inner" / "predictor.json").unlink()
    (tmp_path / "inner").rmdir()
    (tmp_path / "inner").symlink_to(tmp_path)
    with pytest.raises(PredictorError, match="already"):
        load_predictor(tmp_path)


def test_what_cannot_be_calibrated() -> None:
    """Too few answers, nothing known, exact lengths, another number of lengths."""
    inner = ConstantPredictor.fit(LEARNED)
    with pytest.raises(PredictorError, match="19 answers"):
        CalibratedPredictor.fit(inner, requests(19), LEARNED[:19])
    for other in (UnknownPredictor(), OraclePredictor({"0": 5})):
        with pytest.raises(PredictorError, match="no distribution"):
            CalibratedPredictor.fit(other, requests(30), LEARNED[:30])
    with pytest.raises(ValueError, match="30 requests and 29"):
        CalibratedPredictor.fit(inner, requests(30), LEARNED[:29])


def test_all_lengths_equal() -> None:
    """A model that always writes 40 tokens: the estimate narrows down to that, and nothing fails."""
    predictor = CalibratedPredictor.fit(ConstantPredictor.fit(LEARNED), requests(200), np.full(200, 40.0))
    estimates = predictor.predict(requests(1))
    assert 33 <= estimates.quantile(0.05)[0] <= estimates.quantile(0.95)[0] <= 48


def test_data_calibrates() -> None:
    """One answer a prompt is used, of as many prompts as asked for; what is calibrated is calibrated anew."""
    lengths = np.stack([LEARNED[:300] * 4, LEARNED[:300] * 4], axis=1)
    data = LengthData(requests(300), lengths, np.zeros(lengths.shape, bool))
    once = calibrate(ConstantPredictor.fit(LEARNED), data, ANSWER, num_rows=100, model="m")
    twice = calibrate(once, data, ANSWER, num_rows=100)
    assert len(once.stated) == 102
    assert twice.inner is once.inner
    assert once.octaves == pytest.approx(2, abs=0.2)


@needs_mirror
def test_real_answers_of_another_model() -> None:
    """Learned from Vicuna's lengths (1,000 rows), calibrated by 100 answers of GPT-4: over 40 draws its intervals hold
    88 to 92 % of the others (as it is: below 70 %)."""
    vicuna = read_data("alpaca-vicuna/train", MIRROR)[:1000]
    predictor = train("text", vicuna, ANSWER)
    data = read_data("alpaca-eval/gpt4", MIRROR)
    lengths = data.lengths[:, 0]
    estimates = predictor.predict(data.requests)
    assert sum(tails(estimates, lengths)) > 0.3

    inner = _Remembered(estimates)
    rows = tuple(replace(request, id=str(row)) for row, request in enumerate(data.requests))
    rng, found = np.random.default_rng(0), []
    for _ in range(40):
        known, fresh = np.split(rng.permutation(len(rows)), [100])
        calibrated = CalibratedPredictor.fit(inner, [rows[row] for row in known], lengths[known])
        found.append(tails(calibrated.predict([rows[row] for row in fresh]), lengths[fresh]))
    below, above = np.mean(found, axis=0)
    assert 0.88 <= 1 - below - above <= 0.92
    assert 0.03 <= min(below, above) <= max(below, above) <= 0.07


class _Remembered:
    """What a predictor said, by row: so that 40 draws cost one prediction."""

    model: str | None = None

    def __init__(self, estimates: LengthEstimates) -> None:
        self.estimates = estimates

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        return self.estimates[[int(request.id) for request in requests]]

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        pass


@pytest.mark.parametrize(
    "change",
    [
        {"true": [0.0, 0.7, 0.4, 1.0]},
        {"stated": [0.0, 0.7, 0.4, 1.0]},
        {"true": [0.0, 0.5, 0.6, 0.9]},
        {"true": [0.1, 0.5, 0.6, 1.0]},
        {"true": [0.0, 1.0]},
        {"stated": [0.0], "true": [0.0]},
    ],
)
def test_levels_that_are_none_are_refused(tmp_path: Path, change: dict[str, list[float]]) -> None:
    """Both rise from 0 to 1, and are as many."""
    CalibratedPredictor.fit(ConstantPredictor.fit(LEARNED), requests(100), LEARNED[:100]).save(tmp_path)
    levels = {"stated": [0.0, 0.3, 0.6, 1.0], "true": [0.0, 0.4, 0.5, 1.0]}
    for wrong, refused in ((levels, False), ({**levels, **change}, True)):
        save_file(
            {name: np.array(values, np.float32) for name, values in wrong.items()}, tmp_path / "arrays.safetensors"
        )
        if refused:
            with pytest.raises(PredictorError, match="no calibration"):
                load_predictor(tmp_path)
        else:
            load_predictor(tmp_path)
