"""The generator of the training text."""

import hashlib
import itertools
import random
import re

import pytest

from tools.bundled_model import corpus, foreign, perception, phrases
from tools.bundled_model.families import FAMILIES, draw_plan, plan_mode
from tools.bundled_model.plans import MODIFIERS
from tools.bundled_model.prompts import PROMPTS_PATH, prompt_lines
from tools.bundled_model.sentences import DealtSentences
from tools.bundled_model.topics import TOPICS
from tools.bundled_model.train import Recipe, Stage

NUM_CONVERSATIONS = 4000
STREAM_SHA256 = "5b42565fe1e72f08c88b71274dc8cff27e65a6e4bcaecb48513795a41fb25040"
# Figures, and every word of the templates that speaks about the answer's length.
STATES_LENGTH = re.compile(r"\d|\b(detail|short|few|little|long|complete)\b")


def count_words(text: str) -> int:
    return len(text.split())


def draw(seed: int, mix: corpus.Mix, count: int = NUM_CONVERSATIONS) -> list[corpus.Conversation]:
    return list(itertools.islice(corpus.training_stream(seed, count_words, mix), count))


@pytest.fixture(scope="module", params=Recipe().stages, ids=["stage-1", "stage-2", "stage-3"])
def stage(request) -> Stage:
    return request.param


@pytest.fixture(scope="module")
def conversations(stage) -> list[corpus.Conversation]:
    return draw(stage.seed, stage.mix)


def test_the_same_seed_gives_the_same_stream(stage, conversations):
    assert draw(stage.seed, stage.mix, 1000) == conversations[:1000]


def test_another_seed_gives_another_stream(stage, conversations):
    assert draw(stage.seed + 10, stage.mix, 50) != conversations[:50]


def test_the_stages_differ_in_seed():
    seeds = [stage.seed for stage in Recipe().stages]
    assert len(set(seeds)) == len(seeds)


def test_the_stream_is_the_same_on_every_machine():
    digest = hashlib.sha256()
    for conversation in draw(1, corpus.FIRST_MIX, 1000):
        digest.update(repr(conversation.messages).encode())
    assert digest.hexdigest() == STREAM_SHA256


def test_dealt_sentences_do_not_repeat_before_all_have_been_used():
    rng = random.Random(12)
    sentences = DealtSentences(phrases.ADVICE, TOPICS[0], {}, rng).take(len(phrases.ADVICE))
    assert len(set(sentences)) == len(phrases.ADVICE)


def test_there_are_eight_to_twelve_families_and_some_sixty_topics():
    assert 8 <= len(FAMILIES) <= 12
    assert len({topic.activity for topic in TOPICS}) == 60
    assert sum(family.weight for family in FAMILIES) == pytest.approx(1, abs=0.05)
    assert sum(weight for _, _, weight in MODIFIERS) == pytest.approx(1)


def test_held_out_combinations_never_occur_in_training(conversations):
    held_out = {prompt.combination.key for prompt in corpus.held_out_prompts()}
    trained = {combination.key for conversation in conversations for combination in conversation.combinations}
    assert len(held_out) > 500
    assert len(trained) > 2000
    assert not held_out & trained


def test_the_share_of_each_word_of_a_prompt_that_is_held_out_is_small():
    combinations = [corpus.draw_combination(random.Random(seed)) for seed in range(4000)]
    share = sum(map(corpus.is_held_out, combinations)) / len(combinations)
    assert share == pytest.approx(1 / 8, abs=0.03)


def test_the_shipped_prompts_are_those_that_the_generator_holds_out():
    assert PROMPTS_PATH.read_text(encoding="utf-8") == prompt_lines()


def test_at_most_15_percent_of_the_prompts_state_a_length():
    prompts = [prompt.text for prompt in corpus.held_out_prompts()]
    assert sum(bool(STATES_LENGTH.search(prompt)) for prompt in prompts) <= 0.15 * len(prompts)


def test_an_answer_has_the_parts_that_its_opening_announces():
    rng = random.Random(3)
    for prompt in corpus.training_side_prompts(500, seed=4):
        answer = corpus.answer_prompt(prompt, rng)
        announced = int(re.search(r"\d+", answer)[0])
        marks = re.findall(r"(\d+) of (\d+)|\((\d+)\)", answer)
        assert [int(first or bare) for first, _, bare in marks] == list(range(1, announced + 1))
        assert {int(total) for _, total, _ in marks if total} <= {announced}


def test_the_mode_of_the_plan_is_its_most_frequent_value():
    rng = random.Random(5)
    for prompt in corpus.training_side_prompts(50, seed=6):
        plans = [draw_plan(prompt.combination, rng) for _ in range(400)]
        assert max(set(plans), key=plans.count) == plan_mode(prompt.combination)


def test_an_answer_holds_no_digit_besides_its_plan():
    rng = random.Random(7)
    for prompt in corpus.training_side_prompts(300, seed=8):
        answer = corpus.answer_prompt(prompt, rng)
        rest = re.sub(r"\d+ of \d+|\(\d+\)", "", answer)
        assert len(re.findall(r"\d+", rest)) == 1


def test_perception_questions_are_few_and_answered_by_a_number(conversations):
    answers = [
        conversation.messages[-1]["content"] for conversation in conversations if len(conversation.messages) <= 3
    ]
    numbers = [answer for answer in answers if answer.isdigit()]
    in_advance = [answer for answer in answers if re.match(r"\d+\n", answer)]
    assert 0.01 < len(numbers) / len(answers) < 0.03
    assert 0.01 < len(in_advance) / len(answers) < 0.03


def test_rough_numbers_are_unbiased_tens():
    rng = random.Random(9)
    numbers = sorted(perception.rough_number(200, rng) for _ in range(2001))
    assert all(number % 10 == 0 for number in numbers)
    assert numbers[1000] == pytest.approx(200, abs=20)
    assert numbers[1800] > 300


def test_foreign_prompts_share_no_template_with_the_families():
    """Whatever stands in their slots: a model that knows the families' templates has not seen these."""
    own = {shape(template) for family in FAMILIES for template, _ in family.prompts}
    assert len(own) > 60
    assert not own & {shape(frame.text) for frame in foreign.FRAMES}


def shape(template: str) -> str:
    return re.sub(r"\{\w+\}", "{}", template).rstrip(".?!").lower()
