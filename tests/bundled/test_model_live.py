"""A short form of the measurement, so that the numbers on record can't drift from what the model does."""

import json
import re

import numpy as np
import pytest
import torch

from tools.bundled_model.generation import TEMPERATURE, Answerer, count_lengths
from tools.bundled_model.prompts import read_prompts
from tools.bundled_model.statistics import MAX_NEW_TOKENS

NUM_PROMPTS = 64


@pytest.fixture(scope="module")
def one_thread():
    """Two threads that wait for each other at every small product lose more than they gain when cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def answerer(model_dir):
    return Answerer(model_dir)


@pytest.fixture(scope="module")
def prompts():
    return [row["prompt"] for row in read_prompts()[:NUM_PROMPTS]]


@pytest.fixture(scope="module")
def recorded(model_dir):
    """Recorded lengths, (prompts, 5): greedy, then four samples."""
    numbers = json.loads((model_dir / "statistics.json").read_text(encoding="utf-8"))
    return np.array(numbers["lengths"])[:NUM_PROMPTS]


@pytest.fixture(scope="module")
def sampled(answerer, prompts, recorded, one_thread):
    """One sampled answer a prompt, in batches of like length: a quarter of the time of one batch."""
    answers = {}
    for index, rows in enumerate(np.argsort(recorded[:, 0], kind="stable").reshape(-1, 16)):
        torch.manual_seed(100 + index)
        answers |= dict(zip(rows, answerer.answer([prompts[row] for row in rows], TEMPERATURE), strict=True))
    return [answers[row] for row in range(NUM_PROMPTS)]


def test_sampled_lengths_look_like_those_on_record(recorded, sampled):
    lengths = count_lengths(sampled)
    # The mean of 64 lengths that each vary by about 40 tokens strays by 5; four times that is generous.
    assert abs(lengths.mean() - recorded[:, 1:].mean()) < 20
    assert np.corrcoef(lengths, recorded[:, 1:].mean(axis=1))[0, 1] > 0.7


def test_nine_of_ten_sampled_answers_stop_by_themselves(sampled):
    assert (count_lengths(sampled) < MAX_NEW_TOKENS).mean() >= 0.9


def test_answers_are_sentences_of_the_generator(answerer, sampled):
    texts = [answerer.tokenizer.decode(answer, skip_special_tokens=True) for answer in sampled]
    assert all(text.strip() and "\ufffd" not in text for text in texts)
    assert len(set(texts)) >= 0.95 * len(texts)


def test_a_marked_answer_ends_at_the_part_that_it_announced(answerer, sampled):
    complete = []
    for answer in sampled:
        marks = re.findall(r"(\d+) of (\d+)", answerer.tokenizer.decode(answer, skip_special_tokens=True))
        if marks:
            complete.append(marks[-1][0] == marks[-1][1])
    assert np.mean(complete) >= 0.75


def test_perception_questions_get_a_number(answerer, one_thread):
    question = "How many tokens would your answer to the following have? Say only the number.\nWhat is baking bread?"
    answer = answerer.tokenizer.decode(answerer.answer([question])[0], skip_special_tokens=True)
    assert answer.isdigit()
