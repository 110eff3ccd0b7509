"""What remains of an answer, from what is written of it: coherent with its base, better where the text tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lengthwise.errors import PredictorError, UsageError
from lengthwise.estimates import GRID, LengthEstimates
from lengthwise.learning.data import LengthData, read_data
from lengthwise.learning.labels import Target
from lengthwise.learning.scoring_remaining import score_remaining, written_samples
from lengthwise.learning.training import TrainConfig, train
from lengthwise.predictors.remaining.features import NAMES, partial_features
from lengthwise.predictors.remaining.predictor import RemainingPredictor, shifted
from lengthwise.predictors.saved import load_predictor
from lengthwise.protocols import AnswerReviser
from lengthwise.testing import check_predictor
from lengthwise.types import Request

ANSWER = Target("answer")
SMALL = {"base": "constant", "num_trees": 60, "num_looks": 4}
ODD_TEXTS = ["", " \n\n", "x" * 300_000, "```", "- \n" * 1000, "1. ", "🙂\ud800", "999) " * 50, "。" * 40]


def make_data(num: int, seed: int, limit: int | None = None) -> LengthData:
    """Lists of as many items as are asked for, a word a token. How long items are is each answer's own: its beginning
    shows it, its prompt does not."""
    draw = np.random.default_rng(seed)
    requests, texts = [], []
    for number in range(num):
        num_items, item_words = int(draw.integers(3, 13)), int(draw.integers(3, 30))
        words = draw.poisson(item_words, num_items)
        lines = [" ".join([f"{item}.", *["word"] * num]) for item, num in enumerate(words, start=1)]
        requests.append(Request(f"{seed}-{number}", f"List {num_items} uses of a thing, {seed} {number}."))
        texts.append(("\n".join(lines),))
    lengths = np.array([[len(text.split()) + 1] for (text,) in texts], np.float64)
    whole = LengthData(tuple(requests), lengths, np.zeros(lengths.shape, bool), texts=tuple(texts))
    if limit is None:
        return whole
    cut = tuple((" ".join(text.split(" ")[:limit]),) for (text,) in texts)
    return LengthData(whole.requests, whole.lengths, whole.is_cut, texts=cut).within(limit)


def fit(data: LengthData, **settings: Any) -> Any:
    return train("remaining", data, ANSWER, TrainConfig(0, "m", settings={**SMALL, **settings}))


@pytest.fixture(scope="module")
def predictor() -> RemainingPredictor:
    found: RemainingPredictor = fit(make_data(600, 1))
    return found


@pytest.fixture(scope="module")
def unseen() -> LengthData:
    return make_data(300, 2)


def test_it_keeps_the_contract(predictor: RemainingPredictor, unseen: LengthData) -> None:
    """The conformance suite; and it is seen to revise."""
    check_predictor(predictor, unseen.requests[:6])
    assert isinstance(predictor, AnswerReviser)


def test_with_nothing_written_it_is_its_base(predictor: RemainingPredictor, unseen: LengthData) -> None:
    """To the last bit, whatever text is claimed to be there."""
    few = unseen.requests[:5]
    base, revised = predictor.base.predict(few), predictor.revise_running(few, ["", "", "a", "", ""], [0] * 5)
    for name in ("survival", "at_least", "limit"):
        assert np.array_equal(getattr(base, name), getattr(revised, name))


@pytest.mark.parametrize("num_tokens", [1, 2, 15, 16, 17, 100, 255, 256, 257, 5000, 131_072, 200_000])
def test_all_mass_lies_above_what_is_written(
    num_tokens: int, predictor: RemainingPredictor, unseen: LengthData
) -> None:
    """Whatever the text is, and however far beyond all that was learned from."""
    requests = [unseen.requests[0]] * len(ODD_TEXTS)
    revised = predictor.revise_running(requests, ODD_TEXTS, [num_tokens] * len(ODD_TEXTS))
    assert (revised.at_least == num_tokens).all()
    assert (revised.exceeds(num_tokens) == 1).all()
    assert (revised.quantile(0.01) >= num_tokens).all()
    medians = revised.capped(10**6).median
    assert (medians > num_tokens).all()
    assert (medians <= revised.capped(10**6).quantile(0.9)).all()


def test_what_is_written_tells_more_than_that_it_goes_on(predictor: RemainingPredictor, unseen: LengthData) -> None:
    """Half of the error is gone at 64 tokens, beyond chance, and 90 % intervals hold."""
    scores = {one.num_tokens: one for one in score_remaining(predictor, unseen)}
    assert list(scores) == [16, 64, 128, 256]
    assert scores[64].mae < 0.5 * scores[64].mae_given
    assert scores[64].gain_ci95[0] > 0
    assert scores[64].coverage_90 >= 0.85
    lengths = unseen.lengths[:, 0]
    goes_on = lengths > 64
    assert scores[64].num_answers == goes_on.sum()
    given = predictor.base.predict([unseen.requests[row] for row in np.flatnonzero(goes_on)]).given(64)
    assert scores[64].mae_given == pytest.approx(np.abs(given.median - lengths[goes_on]).mean(), rel=1e-5)


def test_the_number_of_items_written_counts(predictor: RemainingPredictor) -> None:
    """Of two answers of the same length so far, the one that is at its last item ends sooner."""
    requests = [Request("a", "List 8 uses of a thing."), Request("b", "List 8 uses of a thing.")]
    nearly = "\n".join(f"{item}. " + "word " * 9 for item in range(1, 9)).strip()
    far = "\n".join(f"{item}. " + "word " * 26 for item in range(1, 4)).strip()
    revised = predictor.revise_running(requests, [nearly, far], [80, 80])
    assert revised.median[0] + 20 < revised.median[1]


def test_cut_answers_are_at_least_that_long(unseen: LengthData) -> None:
    """Learned from answers cut at 100 tokens (a third of them), at 64 it expects them to go on beyond: nearly as often
    as they do."""
    cut = fit(make_data(600, 1, limit=100))
    long = np.flatnonzero(unseen.lengths[:, 0] > 64)
    texts = [" ".join(unseen.texts[row][0].split(" ")[:64]) for row in long]  # type: ignore[index]
    revised = cut.revise_running([unseen.requests[row] for row in long], texts, [64] * len(long))
    true = np.mean(unseen.lengths[long, 0] > 100)
    assert float(revised.exceeds(100).mean()) == pytest.approx(true, abs=0.08)


@pytest.mark.parametrize("num_tokens", [1.0, 16.0, 64.0, 100.0, 250.0, 255.0])
def test_a_shifted_curve_says_what_it_said(num_tokens: float) -> None:
    """P(length > n + r | n) is P(left > r) at the grid's points; where the next one is so near that a curve can't fall
    before it, at those behind it."""
    soon = 0.5 * np.exp(-GRID / 3) + 0.5 * np.exp(-GRID / 100)
    left = np.vstack([np.exp(-GRID / 60), 1 / (1 + (GRID / 30) ** 3), soon]).astype(np.float32)
    estimates = LengthEstimates.from_survival(shifted(left, [num_tokens] * 3)).given(num_tokens)
    rest = LengthEstimates.from_survival(left)
    nearest = num_tokens if num_tokens < 250 else 1.05 * num_tokens
    points = [point for point in GRID if nearest < point < num_tokens + 150]
    assert points
    for point in points:
        np.testing.assert_allclose(estimates.exceeds(point), rest.exceeds(point - num_tokens), atol=2e-3)


def test_nothing_known_stays_so(predictor: RemainingPredictor) -> None:
    """Where the base knows nothing, a text alone is not trusted."""

    class Unknown:
        model = None

        def predict(self, requests: Any) -> LengthEstimates:
            return LengthEstimates.unknown(len(requests))

    lost = RemainingPredictor(Unknown(), predictor.trees, predictor.residuals, predictor.learned_from)  # type: ignore[arg-type]
    revised = lost.revise_running([Request("a", "b")], ["some words"], [20])
    assert not np.isfinite(revised.median).any()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1. one\n2. two\n3. thr", {"num_items": 3, "items_left": 5, "items_written_share": 3 / 8, "ends_line": 0}),
        ("Uses:\n- one\n- two\n", {"num_items": 2, "items_left": 6, "ends_line": 1, "ends_paragraph": 0}),
        ("No list. Just words", {"num_items": 0, "items_left": None, "ends_sentence": 0, "num_sentences": 1}),
        ("So it is.\n\nIn conclusion, it ends.", {"is_closing": 1, "ends_sentence": 1, "num_paragraphs": 2}),
        ("See:\n```\ncode(", {"is_in_code": 1, "is_closing": 0, "characters_a_token": 14 / 10}),
        ("See:\n```\ncode()\n```\n\n", {"is_in_code": 0, "ends_paragraph": 1}),
    ],
)
def test_features_show_where_an_answer_stands(
    text: str, shown: dict[str, float | None], predictor: RemainingPredictor
) -> None:
    """Items of a list against those asked for, the end of a sentence, a line or a paragraph, code, closing words."""
    requests = [Request("r", "List 8 uses of a thing.")]
    row = partial_features(requests, [text], np.array([10.0]), predictor.base.predict(requests))[0]
    found = dict(zip(NAMES, row.tolist(), strict=True))
    for name, value in shown.items():
        assert found[name] == pytest.approx(np.nan if value is None else value, nan_ok=True), name


def test_features_are_numbers(predictor: RemainingPredictor) -> None:
    """Odd texts give rows of the right width; only what a text doesn't have is missing."""
    requests = [Request(str(number), "List five things.") for number in range(len(ODD_TEXTS))]
    rows = partial_features(requests, ODD_TEXTS, np.full(len(ODD_TEXTS), 9.0), predictor.base.predict(requests))
    assert rows.shape == (len(ODD_TEXTS), len(NAMES))
    assert not np.isinf(rows).any()
    assert np.isfinite(rows[:, 0]).all()


def test_it_comes_back_from_its_folder(predictor: RemainingPredictor, unseen: LengthData, tmp_path: Path) -> None:
    """With what it says of answers that are written; `load_predictor` finds its kind."""
    predictor.save(tmp_path)
    loaded: Any = load_predictor(tmp_path)
    few, texts, numbers = unseen.requests[:3], ["1. word word", "", "1. word\n2. word"], [4, 0, 70]
    one, other = (each.revise_running(few, texts, numbers) for each in (predictor, loaded))
    assert np.array_equal(one.survival, other.survival)
    assert loaded.learned_from == predictor.learned_from


@pytest.mark.parametrize("fault", ["trees", "no trees", "base", "twice", "residuals"])
def test_a_spoilt_folder_is_refused(fault: str, predictor: RemainingPredictor, tmp_path: Path) -> None:
    """With a PredictorError, before anything is predicted."""
    predictor.save(tmp_path)
    trees = tmp_path / "trees.txt"
    if fault == "trees":
        trees.write_text(trees.read_text()[:-100])
    elif fault == "no trees":
        trees.unlink()
    elif fault == "base":
        (tmp_path / "base" / "predictor.json").unlink()
    elif fault == "twice":
        predictor.save(tmp_path / "base")
    else:
        (tmp_path / "arrays.safetensors").write_bytes(b"no tensors")
    with pytest.raises(PredictorError):
        RemainingPredictor.load(tmp_path)


def test_what_cant_be_learned_from_is_said(unseen: LengthData) -> None:
    """No texts, too few, a target that nobody writes, a setting that can't be."""
    bare = LengthData(unseen.requests, unseen.lengths, unseen.is_cut)
    with pytest.raises(PredictorError, match="0 answers"):
        fit(bare)
    with pytest.raises(PredictorError, match="50 answers"):
        fit(unseen[:50])
    with pytest.raises(UsageError, match="max"):
        train("remaining", unseen, Target("max"), TrainConfig())
    with pytest.raises(UsageError, match="num_trees"):
        fit(unseen, num_trees=0)
    with pytest.raises(UsageError, match="base"):
        fit(unseen, base="encoder")


def test_texts_are_read_beside_lengths(tmp_path: Path) -> None:
    """One text is the first sample's, a list has one each; those that are missing are left out."""
    rows = [
        {"prompt": "a", "length": [3, 4], "text": "one"},
        {"prompt": "b", "length": [3, 4], "text": ["two", "three"]},
        {"prompt": "c", "length": [3, None], "text": [None, "lost"]},
        {"prompt": "d", "completion_tokens": 5},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = read_data(path)
    found_rows, samples, texts = written_samples(data)
    assert list(zip(found_rows.tolist(), samples.tolist(), texts, strict=True)) == [
        (0, 0, "one"),
        (1, 0, "two"),
        (1, 1, "three"),
    ]
    assert written_samples(data[[1, 3]])[2] == ["two", "three"]
    (tmp_path / "bare.jsonl").write_text(json.dumps(rows[3]) + "\n")
    assert read_data(tmp_path / "bare.jsonl").texts is None
