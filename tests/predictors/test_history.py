"""What the same or a similar request took before."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.errors import PredictorError, UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.learning.data import LengthData
from lengthwise.learning.labels import Target
from lengthwise.learning.training import TrainConfig, train
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.constant import ConstantPredictor
from lengthwise.predictors.history.keys import LEVELS, bands_of, keys_of
from lengthwise.predictors.history.predictor import TABLE, HistoryPredictor, mixed
from lengthwise.predictors.history.store import MAX_LENGTHS, HistoryStore
from lengthwise.predictors.saved import load_predictor
from lengthwise.testing import check_predictor
from lengthwise.types import Capabilities, Completion, Request

LONG = (
    "Please write a friendly letter to the people who live next door, and tell them that the garden party will take "
    "place on the second Saturday of the month, that they may bring whatever they like to eat, and that it ends early."
)


def answered(predictor: HistoryPredictor, request: Request, num_tokens: int, is_cut: bool = False) -> None:
    reason = "length" if is_cut else "stop"
    predictor.observe([request], [Completion(request.id, "", reason, completion_tokens=num_tokens)])  # type: ignore[arg-type]


def medians(predictor: HistoryPredictor, *requests: Request) -> list[float]:
    return [round(value) for value in predictor.predict(requests).median.tolist()]


BASE = ConstantPredictor.fit([20, 60, 100, 140, 300], model="m")


class TestLikes:
    """When two requests have something in common."""

    def test_numbers_names_quotes_and_paths_fill_a_template(self):
        """The rest is the template, whatever its case and white space."""
        first = Request("a", 'Write an invoice for Jane Doe over 30.5 items of "chairs", see /home/jane/x.txt')
        second = Request("b", 'Write an  invoice for Bob Ray Hill over 7 items of "very old tables", see /tmp/y')
        other = Request("c", "Cancel an invoice for Jane Doe over 30.5 items")
        keys = [keys_of(request) for request in (first, second, other)]
        assert keys[0]["template"] == keys[1]["template"] != keys[2]["template"]
        assert keys[0]["prompt"] != keys[1]["prompt"]

    def test_the_first_line_of_a_longer_text_is_an_opening(self):
        """The text to work on below it may be anything; a greeting is no sign."""
        first, second = (keys_of(Request("a", f"Summarise this text:\n{text}")) for text in ("One thing.", "Another!"))
        assert first["opening"] == second["opening"]
        assert first["template"] != second["template"]
        assert "opening" not in keys_of(Request("a", "Hi,\nhow are you?"))
        assert "opening" not in keys_of(Request("a", "Summarise this text."))

    def test_system_prompt_and_user_are_seen_wherever_they_stand(self):
        """User names in the row or in the API's field; system prompts tell apart prompts that read the same."""

        def chat(system: str) -> Request:
            return Request("a", ({"role": "system", "content": system}, {"role": "user", "content": "Hello there"}))

        assert keys_of(chat("Be brief."))["system"] != keys_of(chat("Be long."))["system"]
        assert keys_of(chat("Be brief."))["prompt"] != keys_of(chat("Be long."))["prompt"]
        by_row, by_field = Request("a", "x", metadata={"user": "u7"}), Request("b", "y", api_fields={"user": "u7"})
        assert keys_of(by_row)["user"] == keys_of(by_field)["user"]
        assert "user" not in keys_of(Request("a", "x", metadata={"user": ["odd"]}))

    def test_prompts_that_are_nearly_the_same_share_a_band(self):
        """One word of forty exchanged; another text shares none."""
        near = set(bands_of(Request("a", LONG))) & set(bands_of(Request("b", LONG.replace("garden", "street"))))
        assert near
        assert not set(bands_of(Request("a", LONG))) & set(bands_of(Request("b", " ".join(reversed(LONG.split())))))


class TestPredictions:
    """What past lengths make of an estimate."""

    def test_the_same_prompt_takes_what_it_took(self):
        """Repeats draw the estimate to their own lengths, the more the more there are; others stay as the base."""
        predictor, asked = HistoryPredictor(BASE), Request("a", LONG)
        before = medians(predictor, asked)[0]
        answered(predictor, asked, 400)
        once = predictor.predict([asked]).quantile(0.25)[0]
        answered(predictor, asked, 400)
        answered(predictor, asked, 400)
        assert medians(predictor, Request("b", LONG))[0] == pytest.approx(400, rel=0.1)
        assert predictor.predict([asked]).quantile(0.25)[0] > once
        assert medians(predictor, Request("c", "Tell me a joke"))[0] == before

    @pytest.mark.parametrize(
        "alike",
        [
            Request("b", LONG.replace("garden", "street")),
            Request("b", LONG.replace("second Saturday", "second Monday")),
        ],
    )
    def test_what_is_nearly_the_same_or_of_one_template_says_something(self, alike):
        """Less than the same prompt, more than nothing."""
        predictor, asked = HistoryPredictor(BASE), Request("a", LONG)
        before = medians(predictor, alike)[0]
        for _ in range(4):
            answered(predictor, asked, 400)
        assert before < medians(predictor, alike)[0] <= medians(predictor, asked)[0] + 1

    def test_a_user_counts_little_but_counts(self):
        """Many long answers to one user: a new question of theirs is expected longer than another user's."""
        predictor = HistoryPredictor(BASE)
        for number in range(16):
            answered(predictor, Request("a", f"{number} of {number}?", metadata={"user": "long"}), 900)
        new = [Request("n", "What else is there?", metadata={"user": user}) for user in ("long", "other")]
        means = predictor.predict(new).mean()
        assert means[0] > means[1]

    def test_a_censored_length_stands_for_what_lies_beyond_it(self):
        """Cut at 100: shorter ones are less likely than the base says; beyond, chances are as the base has them."""
        curve = BASE.predict([Request("a", "")])
        found = LengthEstimates.from_survival([mixed(curve.survival[0], {"prompt": [-100.0] * 4}, {**WEIGHTS})])
        assert found.exceeds(90)[0] > 0.85 > curve.exceeds(90)[0]
        ratio, before = (one.exceeds(200)[0] / one.exceeds(120)[0] for one in (found, curve))
        assert ratio == pytest.approx(before, rel=0.02)

    def test_with_nothing_under_it_nothing_is_known_of_what_is_new(self):
        """The built-in `history` starts empty, and learns from what ends."""
        predictor = load_predictor("history")
        assert isinstance(predictor, HistoryPredictor)
        assert predictor.model is None
        assert np.isinf(predictor.predict([Request("a", LONG)]).median).all()
        answered(predictor, Request("a", LONG), 50)
        answered(predictor, Request("f", LONG), 0)
        predictor.observe([Request("e", "failed")], [Completion("e", "", "error", completion_tokens=10)])
        assert medians(predictor, Request("b", LONG))[0] == pytest.approx(50, rel=0.15)
        assert np.isinf(predictor.predict([Request("n", "Something else")]).median).all()

    def test_a_level_that_is_left_out_says_nothing(self):
        """Its weight is infinite; others stay."""
        curve, past = BASE.predict([Request("a", "")]).survival[0], {"near": [200.0], "prompt": [400.0]}
        without = {**WEIGHTS, "prompt": math.inf}
        assert mixed(curve, past, without) == pytest.approx(mixed(curve, {"near": [200.0]}, WEIGHTS))
        predictor, asked = HistoryPredictor(BASE, weights=dict.fromkeys(LEVELS, math.inf)), Request("a", LONG)
        answered(predictor, asked, 400)
        assert medians(predictor, asked) == medians(HistoryPredictor(BASE), asked)

    def test_it_keeps_the_contract_of_predictors(self):
        """With a base and without, before and after it has learned."""
        requests = [Request(f"r{i}", f"{LONG} {i % 3}") for i in range(6)]
        check_predictor(HistoryPredictor(), requests)
        predictor = HistoryPredictor(BASE)
        for request in requests:
            answered(predictor, request, 90)
        check_predictor(predictor, requests)


WEIGHTS = dict.fromkeys(LEVELS, 0.5)


class TestMemory:
    """What is kept."""

    def test_what_was_not_met_for_longest_is_forgotten(self):
        """Keys are bounded, and lengths of a key; what comes again stays."""
        store, often = HistoryStore(max_keys=100), Request("a", LONG)
        for number in range(300):
            store.add(Request("b", f"number {number} " + "x" * number), 10, False)
            store.add(often, 20 + number, False)
        assert len(store) == 100
        assert len(store._groups) == 100
        assert store.find(often)["prompt"] == list(range(320 - MAX_LENGTHS, 320))
        assert not store.find(Request("b", "number 5 xxxxx")).get("prompt")

    def test_what_is_saved_has_no_prompt(self, tmp_path: Path):
        """Digests and lengths, as JSON."""
        predictor = HistoryPredictor(BASE)
        answered(predictor, Request("a", LONG, metadata={"user": "Jane"}), 70, is_cut=True)
        predictor.save(tmp_path)
        text = (tmp_path / TABLE).read_text()
        assert "garden" not in text
        assert "Jane" not in text
        loaded = load_predictor(tmp_path)
        assert isinstance(loaded, HistoryPredictor)
        assert loaded.model == "m"
        assert loaded.store.find(Request("b", LONG))["prompt"] == [-70]

    @pytest.mark.parametrize(
        "content", ["", "[]", '{"lengths": {}}', '{"lengths": {"a": [0]}, "groups": {}}', '{"lengths": 1, "groups": 2}']
    )
    def test_a_damaged_folder_is_refused(self, tmp_path: Path, content):
        """With its path."""
        HistoryPredictor(BASE).save(tmp_path)
        (tmp_path / TABLE).write_text(content)
        with pytest.raises(PredictorError, match=TABLE):
            load_predictor(tmp_path)

    def test_weights_are_checked(self, tmp_path: Path):
        """One that is missing, negative or no number."""
        HistoryPredictor(BASE).save(tmp_path)
        header = json.loads((tmp_path / "predictor.json").read_text())
        for weights in ({}, {**header["weights"], "user": -1}, {**header["weights"], "user": "much"}):
            (tmp_path / "predictor.json").write_text(json.dumps({**header, "weights": weights}))
            with pytest.raises(PredictorError, match="weights"):
                load_predictor(tmp_path)


class TestTraining:
    """The trainer replays data in its order."""

    @staticmethod
    def data(num_prompts: int, num_repeats: int, spread: float) -> LengthData:
        """Each prompt has a length of its own, which its words don't tell; repeats differ by `spread`."""
        rng = np.random.default_rng(0)
        centres = np.exp(rng.normal(4.5, 0.9, num_prompts))
        which = rng.permutation(np.repeat(np.arange(num_prompts), num_repeats))
        lengths = np.maximum(1, np.round(centres[which] * np.exp(rng.normal(0, spread, len(which)))))
        requests = tuple(Request(str(i), f"Tell me about thing{prompt}") for i, prompt in enumerate(which))
        return LengthData(requests, lengths[:, None], np.zeros((len(which), 1), bool))

    def test_repeats_are_trusted_as_far_as_they_repeat(self):
        """Exact repeats get a small weight for the rest and foretell far better than the base; where repeats say
        nothing, they are left to the base."""
        config = TrainConfig(settings={"base": "constant"}, model="m")
        close = train("history", self.data(60, 4, 0.1), Target("answer"), config)
        assert isinstance(close, HistoryPredictor)
        assert close.weights["prompt"] <= 1
        assert close.model == "m"
        loose = train("history", self.data(60, 4, 3.0), Target("answer"), config)
        assert isinstance(loose, HistoryPredictor)
        assert loose.weights["prompt"] >= 4
        assert close.learned_from is not None
        assert close.learned_from.num_examples == 240

        data = self.data(60, 4, 0.1)
        lengths = data.lengths[:, 0]
        errors = [np.abs(one.predict(data.requests).median - lengths).mean() for one in (close, close.base)]
        assert errors[0] < errors[1] / 2

    @pytest.mark.parametrize("settings", [{"base": "history"}, {"base": "po"}, {"num_folds": 1}, {"unknown": 1}])
    def test_settings_that_can_not_be_are_refused(self, settings):
        """With what is wrong."""
        with pytest.raises(UsageError):
            train("history", self.data(10, 2, 0.1), Target("answer"), TrainConfig(settings=settings))


def test_a_run_learns_while_it_goes_on():
    """What waits is estimated anew after 100 answers, also where all was read before the first of them."""
    requests = [Request(str(i), f"Say hello {i % 5} times.") for i in range(400)]
    config = ReplayConfig(Capabilities(max_running=8), progress_interval_s=0.0)
    engine = ReplayEngine({str(i): 10 + i % 5 for i in range(400)}, config)
    with Pipeline(engine=engine, predictor="history") as pipeline:
        answers = pipeline.run(requests)
    is_known = [answer.predicted is not None for answer in answers]
    assert not any(is_known[:100])
    assert all(is_known[120:])


def test_too_few_rows_are_named_as_they_were_given():
    """A history of 60 rows learns its base from 40 of them at a time: too few for text, enough for a constant."""
    requests = tuple(Request(str(i), f"Say hello {i} times.") for i in range(60))
    data = LengthData(requests, np.arange(1.0, 61)[:, None], np.zeros((60, 1), bool))
    with pytest.raises(PredictorError, match=r'^60 rows are too few for a history.*base = "constant"'):
        train("history", data, Target(), TrainConfig())
    settings = {"base": "constant"}
    assert train("history", data, Target(), TrainConfig(settings=settings)).predict(requests[:1]).median[0] > 0


def test_a_base_of_before_is_no_part_of_what_is_saved_over_it(tmp_path):
    """Saved without a base over one that had one: the folder has no parts."""
    HistoryPredictor(ConstantPredictor.of_length(5)).save(tmp_path)
    assert len(list(tmp_path.glob("*/predictor.json"))) == 1
    HistoryPredictor().save(tmp_path)
    assert not list(tmp_path.glob("*/predictor.json"))
    assert np.isinf(HistoryPredictor.load(tmp_path).predict([Request("a", "Hello")]).median[0])
