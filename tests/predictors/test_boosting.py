"""Trees on top of the bag of terms: what they gain, what they see, and that damaged ones are refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau
from sklearn.feature_extraction.text import TfidfVectorizer

from lengthwise.errors import PredictorError
from lengthwise.predictors.saved import load_predictor
from lengthwise.predictors.structure import NAMES, structure
from lengthwise.predictors.terms import terms
from lengthwise.predictors.text.bag import Bag
from lengthwise.predictors.text.boosting_fit import BoostingConfig, head_targets
from lengthwise.predictors.text.predictor import TextConfig, TextPredictor
from lengthwise.testing.predictors import ODD_PROMPTS
from lengthwise.types import Request

TREES = TextConfig(boosting=BoostingConfig(min_prompts=100, num_trees=60))
NO_TREES = TextConfig(boosting=BoostingConfig(min_prompts=10**9))


def seen(**changes: object) -> dict[str, float]:
    request = Request("x", **{"prompt": "Write.", **changes})  # type: ignore[arg-type]
    return dict(zip(NAMES, structure([request])[0].tolist(), strict=True))


# -- what is seen ----------------------------------------------------------------------------------------------


def test_the_bag_is_scikit_learns() -> None:
    """Rows are those of TfidfVectorizer, for odd texts too."""
    texts = ["List two rivers.\nRhine, Elbe", "Write a poem, a poem about rivers", "two two two", *ODD_PROMPTS]
    vectorizer = TfidfVectorizer(analyzer=terms, sublinear_tf=True, dtype=np.float32).fit(texts[:3])
    bag = Bag(vectorizer.get_feature_names_out().tolist(), vectorizer.idf_.astype(np.float32))
    for some in (texts, ["nothing known"], [], [""], texts[::-1]):
        wanted = vectorizer.transform(some) if some else np.zeros((0, len(vectorizer.idf_)))
        found = bag.rows(some)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.toarray(), wanted.toarray() if some else wanted, atol=1e-6)


def test_numbers_and_forms_are_seen() -> None:
    """Numbers asked for, in digits and words, questions, lines and quotes."""
    row = seen(prompt='Give three tips, or 12 "good" ones:\nFirst, this.\nThen 7.')
    assert (row["num_numbers"], row["first_number"], row["largest_number"]) == (2, 3, 12)
    assert (row["ends_in_colon"], row["is_question"], row["commas"], row["quotes"]) == (1, 0, 2, 2)
    assert (row["other_lines"], row["digits"]) == (1, 3)
    assert seen(prompt="Is it so?")["is_question"] == 1


def test_foreign_text_is_seen() -> None:
    """Other scripts take more bytes than characters."""
    assert seen(prompt="Write a story.")["foreign_bytes"] == 0
    assert seen(prompt="写一个故事")["foreign_bytes"] == 10


def test_chats_and_tools_are_seen() -> None:
    """System prompt, history, tools and the form of the answer."""
    system, user = {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}
    answer = {"role": "assistant", "content": "Hi there"}
    row = seen(prompt=(system, user, answer, user), api_fields={"tools": [{}, {}], "response_format": {"type": "json"}})
    assert (row["num_messages"], row["system_characters"], row["history_characters"]) == (4, 8, 13)
    assert (row["num_tools"], row["has_response_format"]) == (2, 1)
    alone = seen(prompt=(user,))
    assert (alone["system_characters"], alone["history_characters"], alone["num_tools"]) == (0, 0, 0)


def test_thinking_is_seen() -> None:
    """Thinking on, off, or with an effort, however it is asked for; nothing where it is not said."""
    assert seen()["thinking"] == 0
    assert [seen(api_fields={"reasoning_effort": effort})["thinking"] for effort in ("low", "high")] == [2, 4]
    assert seen(api_fields={"reasoning": {"effort": "none"}})["thinking"] == -1
    for is_on, value in ((True, 1), (False, -1)):
        assert seen(api_fields={"chat_template_kwargs": {"enable_thinking": is_on}})["thinking"] == value
    chat = ({"role": "system", "content": "Be kind. /think"}, {"role": "user", "content": "Hello /no_think "})
    assert seen(prompt=chat)["thinking"] == -1
    assert seen(prompt="Hello /think")["thinking"] == 1
    assert seen(api_fields={"reasoning_effort": 3, "chat_template_kwargs": [], "reasoning": "x"})["thinking"] == 0


def test_a_limit_is_not_seen() -> None:
    """Estimates are natural lengths: `max_tokens` does not move them."""
    assert seen(max_tokens=5) == seen(max_tokens=5000)


# -- what is learned -------------------------------------------------------------------------------------------


def crossed(num: int, seed: int) -> tuple[list[Request], np.ndarray]:
    """A formal essay and a casual poem are long, a casual essay and a formal poem short: no sum over words says that,
    and the two words never stand side by side."""
    rng = np.random.default_rng(seed)
    is_formal, is_essay = rng.integers(0, 2, (2, num)).astype(bool)
    noun = rng.choice(["river", "town", "bird", "tool", "song", "book"], num)
    style, kind = np.where(is_formal, "formal", "casual"), np.where(is_essay, "essay", "poem")
    words = enumerate(zip(style, noun, kind, strict=True))
    texts = [f"I want a {s} text, number {i}, on a {n}, as {k}." for i, (s, n, k) in words]
    lengths = np.where(is_formal == is_essay, 300, 60) * rng.lognormal(0, 0.15, num)
    return [Request(str(i), text) for i, text in enumerate(texts)], lengths


def test_trees_learn_what_no_sum_of_words_says() -> None:
    """Where two words mean something else together, half of the regression's error is gone, and intervals hold
    what they promise."""
    learned, fresh = crossed(800, 0), crossed(800, 1)
    errors = []
    for config in (NO_TREES, TREES):
        estimates = TextPredictor.fit(*learned, model=None, config=config).predict(fresh[0])
        errors.append(np.abs(estimates.median - fresh[1]).mean())
    assert errors[1] < 0.5 * errors[0]
    inside = (fresh[1] >= estimates.quantile(0.05)) & (fresh[1] <= estimates.quantile(0.95))
    assert inside.mean() > 0.88
    assert kendalltau(estimates.median, fresh[1]).statistic > 0.4


def test_few_prompts_grow_no_trees() -> None:
    """Below 500 different prompts the regression stays alone, however often each was answered."""
    requests, lengths = crossed(120, 0)
    assert TextPredictor.fit(requests * 5, np.tile(lengths, 5), model=None).weights.boosting is None
    assert TextPredictor.fit(requests, lengths, model=None, config=TREES).weights.boosting is not None


def test_samples_of_a_prompt_count_as_one_prompt() -> None:
    """Four answers to each prompt make the same trees as their like in any order, and wider intervals than means."""
    requests, lengths = crossed(150, 0)
    samples = lengths[:, None] * np.random.default_rng(5).lognormal(0, 0.5, (150, 4))
    rows = [request for request in requests for _ in range(4)]
    predictor = TextPredictor.fit(rows, samples.ravel().clip(1), model=None, config=TREES)
    order = np.random.default_rng(6).permutation(600)
    shuffled = TextPredictor.fit([rows[i] for i in order], samples.ravel()[order].clip(1), model=None, config=TREES)
    assert predictor.learned_from.num_examples == 600
    width = [
        np.log(p.predict(requests).quantile(0.9) / p.predict(requests).quantile(0.1)).mean()
        for p in (predictor, shuffled)
    ]
    assert width[0] == pytest.approx(width[1], rel=0.15)
    assert width[0] > 2 * 1.28 * 0.5 * 0.8


def test_prompts_answered_more_often_are_not_longer() -> None:
    """A prompt counts by the mean of its answers, be they one or nine."""
    requests, _ = crossed(300, 0)
    lengths = np.array([300.0 if "essay" in request.text else 60.0 for request in requests])
    times = np.where(np.arange(300) % 3, 1, 9)
    rows = [request for request, num in zip(requests, times, strict=True) for _ in range(num)]
    medians = TextPredictor.fit(rows, np.repeat(lengths, times), model=None, config=TREES).predict(requests).median
    assert np.abs(medians / lengths - 1).mean() < 0.2


def test_other_lengths_are_learned_on_the_way() -> None:
    """Each further length gives columns of its own; missing ones are taken for the length itself."""
    lengths = np.arange(1.0, 101)
    alone = head_targets(lengths, np.empty((100, 0)), BoostingConfig())
    beside = head_targets(lengths, np.stack([np.full(100, np.nan), lengths * 2], axis=1), BoostingConfig())
    assert alone.shape == (100, 13)
    assert beside.shape == (100, 13 + 7 + 7)
    np.testing.assert_array_equal(beside[:, 13], alone[:, 0])


def test_other_lengths_that_cannot_be() -> None:
    """Another number of rows, or a 0, is the caller's error."""
    requests, lengths = crossed(150, 0)
    for others in (lengths, lengths[:-1, None], np.zeros((150, 1))):
        with pytest.raises(ValueError, match="others has shape"):
            TextPredictor.fit(requests, lengths, others=others, model=None, config=TREES)


def test_all_lengths_equal_is_no_error() -> None:
    """There is nothing to learn, and the estimate says that length."""
    requests, _ = crossed(150, 0)
    estimates = TextPredictor.fit(requests, np.full(150, 40), model=None, config=TREES).predict(requests)
    np.testing.assert_allclose(estimates.median, 40, rtol=0.2)


@pytest.mark.parametrize("wrong", ["num_trees", "alpha", "min_prompts", "learning_rate"])
def test_configuration_is_checked(wrong: str) -> None:
    """A setting out of range is named when the configuration is made."""
    with pytest.raises(ValueError, match=wrong):
        BoostingConfig(**{wrong: 0})  # type: ignore[arg-type]


# -- on disk ---------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    TextPredictor.fit(*crossed(150, 0), model="m", config=TREES).save(tmp_path)
    return tmp_path


def test_trees_come_back_as_they_were(folder: Path) -> None:
    """The same estimates, and the same again when one without trees is saved over it."""
    fresh, _ = crossed(50, 1)
    loaded = load_predictor(folder)
    again = TextPredictor.fit(*crossed(150, 0), model="m", config=TREES)
    np.testing.assert_array_equal(loaded.predict(fresh).survival, again.predict(fresh).survival)
    without = TextPredictor.fit(*crossed(150, 0), model="m", config=NO_TREES)
    without.save(folder)
    np.testing.assert_array_equal(load_predictor(folder).predict(fresh).survival, without.predict(fresh).survival)


@pytest.mark.parametrize("damage", ["missing", "cut", "changed", "pickle", "folder"])
def test_damaged_trees_are_refused(folder: Path, damage: str) -> None:
    """LightGBM does not check what it reads, so anything but what was saved is refused before it does."""
    path = folder / "trees.txt"
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        changed = {
            "cut": content[:-100],
            "changed": content.replace(b"split_feature=", b"split_feature=9999999 ", 1),
            "pickle": pickle.dumps([1]),
        }
        path.write_bytes(changed[damage])
    with pytest.raises(PredictorError, match=r"trees\.txt"):
        load_predictor(folder)


def test_trees_that_do_not_fit_are_refused(folder: Path) -> None:
    """A digest that was changed with the file is no way in for trees of other columns, or none."""
    import hashlib

    import lightgbm

    small = lightgbm.train(
        {"verbose": -1, "num_threads": 1}, lightgbm.Dataset(np.random.rand(50, 2), np.arange(50.0)), 2
    ).model_to_string()
    for text, said in ((small, "2 columns"), ("no trees at all", "no trees")):
        (folder / "trees.txt").write_text(text)
        header = json.loads((folder / "predictor.json").read_text())
        header["trees_sha256"] = hashlib.sha256(text.encode()).hexdigest()
        (folder / "predictor.json").write_text(json.dumps(header))
        with pytest.raises(PredictorError, match=said):
            load_predictor(folder)
