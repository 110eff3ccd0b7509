"""The text predictor: what it learns, how it is calibrated, and that it counts censored lengths right."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import CensoredData, ecdf, kendalltau

from lengthwise.errors import PredictorError
from lengthwise.estimates import LengthEstimates
from lengthwise.predictors.residuals import ResidualTable
from lengthwise.predictors.survival import kaplan_meier, length_curve
from lengthwise.predictors.terms import MAX_PART_CHARACTERS, prompt_text, terms
from lengthwise.predictors.text.predictor import TextConfig, TextPredictor
from lengthwise.types import Request, SamplingParams

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "alpaca-vicuna"

KINDS = {"Write a long story about": 5.6, "Explain how one makes": 4.8, "Name one fact about": 3.0}
THINGS = [
    f"{a} {b}" for a in ("red", "small", "old", "wooden") for b in ("boats", "clocks", "houses", "lamps", "rivers")
]


def examples(num: int, seed: int = 0) -> tuple[list[Request], np.ndarray]:
    """Prompts of three kinds, log-normal lengths around each kind's centre, spread 0.4."""
    rng = np.random.default_rng(seed)
    prompts = list(itertools.product(KINDS, THINGS))
    picked = rng.integers(0, len(prompts), num)
    requests = [Request(str(i), f"{prompts[k][0]} {prompts[k][1]}.") for i, k in enumerate(picked)]
    lengths = np.exp([rng.normal(KINDS[prompts[k][0]], 0.4) for k in picked]).clip(1).round()
    return requests, lengths


# -- terms -----------------------------------------------------------------------------------------------------


def test_terms_of_a_prompt() -> None:
    """Words and pairs of the first line, the opening's n-grams, the other lines' words."""
    found = terms("List two rivers.\nRhine, Elbe")
    assert {"list", "list two", "rivers .", "^list", "^list two rivers .", "2:rhine", "2:,"} <= set(found)
    assert not {"rhine", "2:rhine ,"} & set(found)
    assert not [term for term in found if "\n" in term]


def test_long_prompts_keep_head_and_tail() -> None:
    """A prompt of a megabyte is read at both ends, and has no more terms than they give."""
    text = "Summarise this text.\n" + "word " * 200_000 + "Use three sentences."
    found = set(terms(text))
    assert {"summarise", "2:sentences"} <= found
    assert len(terms("a " * 10**6)) < 5 * MAX_PART_CHARACTERS


def test_chats_open_with_the_message_to_be_answered() -> None:
    """The system prompt, the same for all, does not take the place of the question."""
    chat = Request("c", ({"role": "system", "content": "Be kind."}, {"role": "user", "content": "Tell a joke."}))
    assert prompt_text(chat) == "Tell a joke.\nBe kind."


# -- survival curves -------------------------------------------------------------------------------------------


def test_kaplan_meier_is_the_textbook_estimate() -> None:
    """Within the samples: the product-limit estimate (here Freireich's remission times, in a textbook's figures)."""
    weeks = [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35]
    censored = [0, 0, 0, 1, 0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1]
    at = np.array([6, 7, 10, 13, 16, 22, 23], float)
    textbook = ecdf(CensoredData.right_censored(weeks, np.array(censored, bool))).sf.evaluate(at)
    np.testing.assert_allclose(textbook, [0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448], atol=5e-4)
    np.testing.assert_allclose(kaplan_meier(weeks, censored, at), textbook, atol=0.06)  # one more sample, at 35


def test_what_samples_cannot_show_has_mass() -> None:
    """After n samples the next is longer than all with a chance of 1 / (n + 1), twice as long with half of that."""
    curve = kaplan_meier(np.log([10, 20, 40]), [False] * 3, np.log([5, 10, 20, 40, 80]))
    np.testing.assert_allclose(curve, [1, 0.75, 0.5, 0.25, 0.125])


def test_a_cut_length_is_at_least_that_long() -> None:
    """512 cut at 512: all of the mass that was cut lies above 511."""
    estimate = LengthEstimates.from_survival(length_curve([100, 512, 512, 512], [False, True, True, True]))
    assert estimate.exceeds(500)[0] > 0.7
    assert (length_curve([1], [True]) <= 1).all()


def test_residual_curves_depend_on_the_level() -> None:
    """Where predictions spread wide the intervals are wide, between levels they change gradually."""
    rng = np.random.default_rng(0)
    predicted = rng.uniform(3, 6, 4000)
    log_lengths = predicted + rng.normal(0, np.where(predicted < 4.5, 0.2, 0.8))
    table = ResidualTable.fit(predicted, log_lengths, np.zeros(4000, bool), 10)
    estimates = LengthEstimates.from_survival(table.length_survival(np.array([3.5, 5.5])))
    ratio = estimates.quantile(0.9) / estimates.quantile(0.1)
    np.testing.assert_allclose(np.log(ratio), [2.56 * 0.2, 2.56 * 0.8], rtol=0.15)


def test_expected_above_is_the_mean_of_what_is_left() -> None:
    """E[r | r > x] of a normal distribution (the inverse Mills ratio), at several x."""
    rng = np.random.default_rng(1)
    predicted = np.full(20_000, 5.0)
    table = ResidualTable.fit(predicted, predicted + rng.normal(0, 1, 20_000), np.zeros(20_000, bool), 1)
    found = table.expected_above(np.full(3, 5.0), np.array([-1.0, 0.0, 1.0]))
    np.testing.assert_allclose(found, [0.288, 0.798, 1.525], atol=0.05)


# -- fitting ---------------------------------------------------------------------------------------------------


def test_it_learns_what_words_say() -> None:
    """Kinds of prompts get their own medians and intervals that hold what they promise."""
    predictor = TextPredictor.fit(*examples(1500), model=None)
    requests, lengths = examples(600, seed=1)
    estimates = predictor.predict(requests)
    assert kendalltau(estimates.median, lengths).statistic > 0.6
    inside = (lengths >= estimates.quantile(0.1)) & (lengths <= estimates.quantile(0.9))
    assert 0.75 < inside.mean() < 0.85


def test_cut_lengths_are_not_taken_for_values() -> None:
    """With a third of the answers cut, the chance to pass the cut is right, and the order survives."""
    requests, lengths = examples(1500)
    cut = 150
    predictor = TextPredictor.fit(requests, np.minimum(lengths, cut), lengths >= cut, model=None)
    blind = TextPredictor.fit(requests, np.minimum(lengths, cut), model=None)
    fresh, true = examples(600, seed=1)
    share = (true > cut).mean()
    assert share > 0.3
    assert predictor.predict(fresh).exceeds(cut).mean() == pytest.approx(share, abs=0.03)
    assert blind.predict(fresh).exceeds(cut).mean() < share / 2
    stories = [request for request in fresh if request.text.startswith("Write")]
    assert np.median(predictor.predict(stories).median) > cut
    assert predictor.learned_from.num_censored == (lengths >= cut).sum()


def test_all_rows_of_a_prompt_lie_in_one_fold() -> None:
    """Samples of one prompt don't predict each other: prompts that tell nothing of others get wide intervals."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), 6)) for _ in range(240)]
    texts = [f"{words[i]} {words[(7 * i + 1) % 240]}" for i in range(240)]  # each word in two prompts, each pair in one
    own_length = np.exp(rng.normal(4.5, 1, 240))
    requests = [Request(f"{i}", text) for i, text in enumerate(texts)] * 4
    predictor = TextPredictor.fit(requests, np.tile(own_length, 4).clip(1), model=None)
    estimates = predictor.predict([Request("new", texts[0])])
    assert np.log(estimates.quantile(0.9) / estimates.quantile(0.1))[0] > 2.2


def test_the_same_seed_gives_the_same_predictor() -> None:
    """Fitting is deterministic."""
    first, second = (TextPredictor.fit(*examples(300), model=None, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.weights.coefficients, second.weights.coefficients)
    np.testing.assert_array_equal(first.weights.residuals.survival, second.weights.residuals.survival)


def test_unknown_words_get_the_marginal_distribution() -> None:
    """Empty prompts and other languages are estimated by all training lengths, not by an extrapolated intercept."""
    requests, lengths = examples(600)
    predictor = TextPredictor.fit(requests, lengths, model=None)
    estimates = predictor.predict([Request("a", ""), Request("b", "写一个关于月亮的故事"), Request("c", "   \n ")])
    np.testing.assert_allclose(estimates.median, np.median(lengths), rtol=0.1)
    np.testing.assert_allclose(estimates.quantile(0.9), np.quantile(lengths, 0.9), rtol=0.1)


def test_odd_training_prompts_do_no_harm(tmp_path: Path) -> None:
    """Lone surrogates and control characters can be learned, saved and loaded."""
    requests = [Request(str(i), f"odd \ud800 \x85 \u2028 {i % 9}") for i in range(60)]
    predictor = TextPredictor.fit(requests, np.arange(1, 61), model=None)
    predictor.save(tmp_path)
    np.testing.assert_array_equal(
        TextPredictor.load(tmp_path).predict(requests).median, predictor.predict(requests).median
    )


def test_how_answers_were_sampled_is_kept() -> None:
    """Provenance lists the distinct sampling parameters, whatever the seeds."""
    requests, lengths = examples(100)
    sampled = [Request(r.id, r.prompt, SamplingParams(temperature=0.7, seed=i)) for i, r in enumerate(requests)]
    learned_from = TextPredictor.fit(sampled, lengths, model="m").learned_from
    assert [params.temperature for params in learned_from.sampling] == [0.7]


def test_too_little_to_learn_from() -> None:
    """Few examples, one prompt only, or prompts without words: a PredictorError that names the way out."""
    requests, lengths = examples(100)
    for few in (requests[:20], [requests[0]] * 100, [Request(str(i), "") for i in range(100)]):
        with pytest.raises(PredictorError, match="constant predictor"):
            TextPredictor.fit(few, lengths[: len(few)], model=None)
    nothing_shared = [Request(str(i), f"word{i}") for i in range(100)]
    with pytest.raises(PredictorError, match="constant predictor"):
        TextPredictor.fit(nothing_shared, lengths, model=None)


def test_lengths_that_cannot_be() -> None:
    """Wrong counts and impossible lengths are the caller's error."""
    requests, lengths = examples(100)
    with pytest.raises(ValueError, match="100 requests and 99 lengths"):
        TextPredictor.fit(requests, lengths[:-1], model=None)
    with pytest.raises(ValueError, match="number 3 is nan"):
        TextPredictor.fit(requests, np.where(np.arange(100) == 3, np.nan, lengths), model=None)
    with pytest.raises(ValueError, match="is_censored"):
        TextPredictor.fit(requests, lengths, [True], model=None)


@pytest.mark.parametrize(
    "wrong", [{"max_terms": 0}, {"num_folds": 1}, {"alphas": ()}, {"alphas": (1.0, 0.0)}, {"min_level_examples": 0}]
)
def test_configuration_is_checked(wrong: dict[str, object]) -> None:
    """A setting out of range is named when the configuration is made."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TextConfig(**wrong)  # type: ignore[arg-type]


# -- real prompts and lengths ----------------------------------------------------------------------------------


def _vicuna(name: str) -> tuple[list[Request], np.ndarray]:
    """Requests and their four lengths (temperatures 0, 0.3, 0.5, 0.7), cut at 512."""
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"no {path}")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    texts = [row["instruction"] + ("\n" + row["input"] if row["input"] else "") for row in rows]
    lengths = [[row[f"L_t{t}"] for t in ("0.0", "0.3", "0.5", "0.7")] for row in rows]
    return [Request(row["id"], text) for row, text in zip(rows, texts, strict=True)], np.minimum(lengths, 512)


def test_vicuna_maximum_of_four() -> None:
    """On the paper's data and target, learned from a quarter of the training rows and scored on others of them: error
    below 71 tokens and tau above 0.49 (68.0 and 0.507 measured; `docs/metrics.md` has all rows)."""
    requests, lengths = _vicuna("train.jsonl")
    target = lengths.max(axis=1)
    learned, fresh = slice(0, 2500), slice(8000, None)
    predictor = TextPredictor.fit(requests[learned], target[learned], target[learned] >= 512, model=None)
    medians = predictor.predict(requests[fresh]).capped(512).median
    assert np.abs(medians - target[fresh]).mean() <= 71
    assert kendalltau(medians, target[fresh]).statistic >= 0.49


def test_vicuna_intervals_hold_what_they_promise() -> None:
    """80 % intervals for one sampled answer hold 75 to 85 % of unseen prompts' answers, and 72 to 88 in the lower and
    the upper half of predictions."""
    requests, lengths = _vicuna("train.jsonl")
    learned, fresh = slice(0, 2500), slice(8000, None)
    predictor = TextPredictor.fit(requests[learned], lengths[learned, 3], lengths[learned, 3] >= 512, model=None)
    true = lengths[fresh, 3]
    estimates = predictor.predict(requests[fresh]).capped(512)
    inside = (true >= estimates.quantile(0.1)) & (true <= estimates.quantile(0.9))
    is_upper = estimates.median > np.median(estimates.median)
    assert 0.75 <= inside.mean() <= 0.85
    for rows in (is_upper, ~is_upper):
        assert 0.72 <= inside[rows].mean() <= 0.88


def test_vicuna_cut_at_150_tokens_keeps_its_order() -> None:
    """With a third of the answers cut, long ones are still ordered (tau above 0.46; 0.496 without a cut), and their
    long ones are expected beyond the cut: at most 0.8 of what a fit that takes the cuts for lengths lacks."""
    requests, lengths = _vicuna("train.jsonl")
    learned, fresh = slice(0, 2500), slice(8000, None)
    cut, true = np.minimum(lengths[learned, 3], 150), lengths[fresh, 3]
    aware, blind = (
        TextPredictor.fit(requests[learned], cut, is_cut, model=None).predict(requests[fresh]).capped(512).median
        for is_cut in (cut == 150, None)
    )
    assert kendalltau(aware, true).statistic > 0.46
    is_long = true > 150
    assert (true[is_long] - aware[is_long]).mean() < 0.8 * (true[is_long] - blind[is_long]).mean()
