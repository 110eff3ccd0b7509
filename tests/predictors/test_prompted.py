"""The model is asked how long its answer would be: PO and PiA."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field

import numpy as np
import pytest

from lengthwise.engines.transformers.backbone import open_backbone
from lengthwise.engines.transformers.options import ModelOptions
from lengthwise.errors import PredictorError, UsageError
from lengthwise.learning.data import LengthData
from lengthwise.learning.labels import Target
from lengthwise.learning.scoring import score
from lengthwise.learning.training import TrainConfig, train
from lengthwise.predictors.calibrated import CalibratedPredictor
from lengthwise.predictors.prompted.predictor import CHUNK, PromptedPredictor
from lengthwise.predictors.prompted.question import QUESTIONS, question_about
from lengthwise.predictors.saved import load_predictor, needs_backbone
from lengthwise.testing import check_predictor
from lengthwise.types import Request


@dataclass
class Scripted:
    """A backbone that answers as its script says; `asked` are the questions."""

    script: object
    model: str = "scripted-1"
    asked: list[Request] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    def ask(self, requests, max_tokens):
        self.asked += requests
        self.batches.append(len(requests))
        return [self.script(request) for request in requests]

    def with_adapter(self, folder):
        raise PredictorError(f"There is no adapter in {folder}.")


def number_in(request):
    """The number that the prompt itself holds, where there is one."""
    return request.text.split("\n\n")[0] or None


def requests_of(*prompts):
    return [Request(f"r{i}", prompt) for i, prompt in enumerate(prompts)]


# -- the question ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["po", "pia"])
def test_the_question_stands_behind_the_prompt(form):
    """Each form its own, and no other: PO never asks for what PiA does."""
    asked = question_about(Request("a", "Tell a tale."), form)
    assert asked.prompt == f"Tell a tale.\n\n{QUESTIONS[form]}"
    assert asked.id == "a"
    other = QUESTIONS["pia" if form == "po" else "po"]
    assert other not in asked.text


def test_po_asks_for_no_answer_and_pia_for_one():
    """The texts differ in what they ask for."""
    assert "Do not answer" in QUESTIONS["po"]
    assert "Give the answer" in QUESTIONS["pia"]


def test_in_a_chat_it_is_the_user_s_last_message():
    """System prompt and history stay; nothing of the prompt is lost, whatever its end is."""
    chat = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "A tale, please. How many tokens do you estimate?"},
    )
    asked = question_about(Request("a", chat), "po")
    assert asked.prompt[:3] == chat[:3]
    assert asked.prompt[3]["content"] == f"{chat[3]['content']}\n\n{QUESTIONS['po']}"
    parts = ({"role": "user", "content": [{"type": "text", "text": "Tell"}]},)
    assert question_about(Request("a", parts), "po").text == f"Tell\n\n{QUESTIONS['po']}"


@pytest.mark.parametrize("chat", [(), ({"role": "user"},), ({"role": "assistant", "content": "So"},)])
def test_a_chat_without_such_a_message_gets_one_more(chat):
    """Rather than none."""
    asked = question_about(Request("a", chat), "po")
    assert asked.prompt[-1] == {"role": "user", "content": QUESTIONS["po"]}
    assert len(asked.prompt) == len(chat) + 1


def test_long_texts_go_in_by_their_ends():
    """In texts and chats; and what would shape an answer does not shape the number."""
    text = "begin" + "x" * 1_000_000 + "end"
    for prompt in (text, ({"role": "user", "content": text},)):
        asked = question_about(Request("a", prompt, api_fields={"response_format": {"type": "json_object"}}), "po")
        assert asked.text.startswith("begin")
        assert asked.text.endswith(f"end\n\n{QUESTIONS['po']}")
        assert len(asked.text) < 10_000
        assert asked.api_fields == {}


# -- numbers → estimates ---------------------------------------------------------------------------------------


def test_the_number_is_the_median():
    """And the spread is what is said of it: two of three within a factor of two."""
    estimates = PromptedPredictor(Scripted(number_in), "po").predict(requests_of("40", "about 400 tokens"))
    assert np.allclose(estimates.median, [40, 400], rtol=0.02)
    assert np.allclose(estimates.exceeds([80.0, 800.0]), 0.16, atol=0.02)
    assert np.allclose(estimates.exceeds([20.0, 200.0]), 0.84, atol=0.02)


def test_what_can_not_be_read_is_nothing_known_and_counted():
    """No number, none at all, one that can't be: never 0 (which would be scheduled first), and no error."""
    predictor = PromptedPredictor(Scripted(number_in), "po")
    estimates = predictor.predict(requests_of("40", "I don't know", "", "0", "-3", "10000000000"))
    assert np.isfinite(estimates.median).tolist() == [True] + [False] * 5
    assert (predictor.num_asked, predictor.num_failed) == (6, 5)
    assert predictor.failure_ratio == pytest.approx(5 / 6)
    predictor.predict(requests_of("40", "no idea"))
    assert (predictor.num_asked, predictor.num_failed) == (8, 6)


def test_failures_are_scored_as_failures():
    """`score` counts them."""
    requests = requests_of(*["40", "no idea"] * 30)
    data = LengthData(tuple(requests), np.full((60, 1), 40.0), np.zeros((60, 1), bool), limit=512)
    found = score(PromptedPredictor(Scripted(number_in), "po"), data, Target())
    assert found.figures["failure_ratio"] == pytest.approx(0.5)


def test_pia_reads_the_first_line_only():
    """Numbers of the answer below are none of the estimate; where the first line has none, none is known."""
    answers = {"a": "120\n1. Sleep 300 minutes", "b": "Sure!\n300 words follow"}
    predictor = PromptedPredictor(Scripted(lambda request: answers[number_in(request)]), "pia")
    estimates = predictor.predict(requests_of("a", "b"))
    assert estimates.median[0] == pytest.approx(120, rel=0.02)
    assert np.isinf(estimates.median[1])


def test_questions_are_asked_in_bounded_batches():
    """However many requests there are."""
    backbone = Scripted(number_in)
    assert len(PromptedPredictor(backbone, "po").predict(requests_of(*["7"] * (2 * CHUNK + 1)))) == 2 * CHUNK + 1
    assert backbone.batches == [CHUNK, CHUNK, 1]


@pytest.mark.parametrize("form", ["po", "pia"])
def test_it_keeps_the_contract(form, chat_llama_dir):
    """With a real model, through its chat template."""
    backbone = open_backbone(ModelOptions(str(chat_llama_dir)))
    predictor = PromptedPredictor(backbone, form, max_new_tokens=4)
    known = requests_of("the garden", "the sea and the garden", "a bicycle has two wheels")
    check_predictor(predictor, known, load=lambda folder: PromptedPredictor.load(folder, backbone))


# -- training --------------------------------------------------------------------------------------------------


def trained(form="po", num=400, seed=0, script=number_in, length_of=lambda number: 3 * number, **settings):
    """Learned where answers are three times as long as is stated, give or take a fifth."""
    draw = np.random.default_rng(seed)
    numbers = draw.integers(5, 100, num)
    lengths = np.maximum(1, length_of(numbers) * np.exp(draw.normal(0, 0.2, num)))[:, None]
    data = LengthData(requests_of(*map(str, numbers)), lengths, np.zeros(lengths.shape, bool), limit=512)
    return train(form, data, Target(), TrainConfig(seed=seed, backbone=Scripted(script), settings=settings))


@pytest.mark.parametrize("form", ["po", "pia"])
def test_what_numbers_are_worth_is_learned(form):
    """The factor, and the spread."""
    predictor = trained(form)
    estimates = predictor.predict(requests_of("20", "60"))
    assert np.allclose(estimates.median, [60, 180], rtol=0.15)
    assert np.allclose(estimates.quantile(0.9) / estimates.quantile(0.1), np.exp(2 * 1.28 * 0.2), rtol=0.35)
    assert predictor.model == "scripted-1"
    assert predictor.learned_from.model == "scripted-1"
    assert predictor.card["num_asked"] == 400


def test_numbers_that_mean_nothing_become_one_length():
    """A model that guesses does not order anything, and a wild number moves nothing."""
    predictor = trained(length_of=lambda number: 100)
    medians = predictor.predict(requests_of("5", "50", "100", "90000")).median
    assert np.allclose(medians, 100, rtol=0.15)


def test_samples_of_one_prompt_are_asked_once():
    """And their lengths all learned."""
    data = LengthData(requests_of(*map(str, range(10, 60))), np.full((50, 4), 40.0), np.zeros((50, 4), bool))
    backbone = Scripted(number_in)
    predictor = train("po", data, Target(), TrainConfig(backbone=backbone))
    assert len(backbone.asked) == 50
    assert predictor.learned_from.num_examples == 200


def test_answers_that_were_cut_are_at_least():
    """Where all long answers were cut, half of them are not said to end at the cut."""
    numbers = np.repeat([10, 100], 100)
    lengths = np.where(numbers == 10, 30.0, 64.0)[:, None]
    data = LengthData(requests_of(*map(str, numbers)), lengths, lengths == 64, limit=64)
    predictor = train("po", data, Target(), TrainConfig(backbone=Scripted(number_in)))
    assert predictor.predict(requests_of("100")).exceeds([64.0])[0] > 0.5


def test_a_model_that_states_no_numbers_can_not_be_trained_on():
    """With how many were read, and a way out."""
    with pytest.raises(PredictorError, match=r"Of 400 questions.*answered 0 with a number.*train text"):
        trained(script=lambda request: "Once upon a time")


def test_a_sample_is_asked():
    """As many as the settings say, and not all."""
    assert trained(max_prompts=50).card["num_asked"] == 50
    for wrong in ({"max_prompts": 3}, {"num_folds": 1}, {"max_words": 3}):
        with pytest.raises(UsageError):
            trained(**wrong)


def test_there_must_be_a_model_to_ask():
    """Else it is said."""
    data = LengthData(requests_of("1", "2"), np.ones((2, 1)), np.zeros((2, 1), bool))
    with pytest.raises(UsageError, match="--model"):
        train("po", data, Target(), TrainConfig())


# -- on disk, and by name --------------------------------------------------------------------------------------


def test_a_trained_one_comes_back(tmp_path):
    """By its folder, for the model that it was trained with; a calibrated one around it, too."""
    predictor = trained()
    predictor.save(tmp_path / "po")
    assert needs_backbone(tmp_path / "po")
    requests = requests_of("20", "60", "no")
    loaded = load_predictor(tmp_path / "po", Scripted(number_in))
    assert np.array_equal(loaded.predict(requests).survival, predictor.predict(requests).survival)
    assert loaded.learned_from == predictor.learned_from
    with pytest.raises(PredictorError, match=r"uses the model scripted-1, and here is other-2"):
        load_predictor(tmp_path / "po", Scripted(number_in, model="other-2"))
    with pytest.raises(PredictorError, match=r"there is none: name it \(--model\)"):
        load_predictor(tmp_path / "po")


def test_one_that_fails_at_times_can_be_calibrated(tmp_path):
    """By the answers of which it said something; the others stay unknown."""
    requests = requests_of(*["40", "no idea"] * 50)
    inner = PromptedPredictor(Scripted(number_in), "po")
    corrected = CalibratedPredictor.fit(inner, requests, np.full(100, 120.0))
    corrected.save(tmp_path / "c")
    assert needs_backbone(tmp_path / "c")
    medians = load_predictor(tmp_path / "c", Scripted(number_in)).predict(requests[:2]).median
    assert medians[0] == pytest.approx(120, rel=0.1)
    assert np.isinf(medians[1])


@pytest.mark.parametrize("name", ["po", "pia"])
def test_names_ask_the_model_at_hand(name):
    """And no other."""
    assert needs_backbone(name)
    predictor = load_predictor(name, Scripted(number_in))
    assert predictor.form == name
    with pytest.raises(PredictorError, match=f"`{name}` asks a language model"):
        load_predictor(name)


@pytest.mark.parametrize("name", ["poo", "po:", "pia:adapter", "none", "constant:3"])
def test_other_names_ask_nothing(name):
    """Only these two, and PO with an adapter."""
    assert not needs_backbone(name)


def test_an_adapter_is_on_for_questions_only(tiny_llama_dir, lora_dir, tmp_path):
    """`po:DIR`: its answers are the adapter's, the model beside it is as it was; saved, it takes the adapter along."""
    backbone = open_backbone(ModelOptions(str(tiny_llama_dir)))
    requests = requests_of("the garden", "the sea and the garden", "a bicycle")
    questions = [question_about(request, "po") for request in requests]
    before = backbone.ask(questions, 6)
    adapter = shutil.copytree(lora_dir, tmp_path / "adapter")
    predictor = load_predictor(f"po:{adapter}", backbone)
    predictor.predict(requests)
    assert predictor.model == backbone.model
    assert predictor._asked.ask(questions, 6) != before
    assert backbone.ask(questions, 6) == before
    predictor.save(tmp_path / "saved")
    shutil.rmtree(adapter)
    loaded = load_predictor(tmp_path / "saved", backbone)
    assert loaded._asked.ask(questions, 6) == predictor._asked.ask(questions, 6)
    with pytest.raises(PredictorError, match="no such folder"):
        load_predictor("po:./nowhere", backbone)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "text"}, "arrays|idf|vocabulary|learned_from"),
        ({"model": None}, "model"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": "8"}, "max_new_tokens"),
        ({"learned_from": {"model": 3}}, "learned_from"),
        ({"learned_from": 7}, "learned_from"),
        ({"has_adapter": True}, "adapter"),
        ({"format_version": 99}, "newer"),
    ],
)
def test_a_header_that_is_wrong_is_a_predictor_error(tmp_path, change, said):
    """With the field, and never a crash."""
    trained().save(tmp_path)
    path = tmp_path / "predictor.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(PredictorError, match=said):
        load_predictor(tmp_path, Scripted(number_in))


def test_arrays_that_are_wrong_are_a_predictor_error(tmp_path):
    """Cut short, missing, falling."""
    predictor = trained()
    predictor.save(tmp_path)
    path = tmp_path / "arrays.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PredictorError, match="safetensors"):
        load_predictor(tmp_path, Scripted(number_in))
    path.unlink()
    with pytest.raises(PredictorError, match="safetensors"):
        load_predictor(tmp_path, Scripted(number_in))
    predictor.learned.expected[:] = predictor.learned.expected[::-1].copy()
    predictor.save(tmp_path)
    with pytest.raises(PredictorError, match="rise"):
        load_predictor(tmp_path, Scripted(number_in))
