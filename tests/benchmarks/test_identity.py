"""Scheduled answers against one at a time, on a real (tiny, random) model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lengthwise.benchmarks.baseline import generate_in_batches
from lengthwise.benchmarks.identity import differences
from lengthwise.engines.transformers import ModelOptions, RunOptions
from lengthwise.engines.transformers.loading import load_model
from lengthwise.engines.transformers.open import engine_for
from lengthwise.pipeline import Pipeline
from lengthwise.testing import NoisyOracle
from lengthwise.types import Request

MAX_TOKENS = 80  # above the paper's bin of 50, so that its caps cut
REQUESTS = [Request(f"r{i}", f"write {'word ' * (i % 7)}number {i}") for i in range(24)]


@pytest.fixture(scope="module")
def loaded(tiny_llama_dir):
    return load_model(ModelOptions(str(tiny_llama_dir)))


@pytest.fixture(scope="module")
def engine(loaded):
    return engine_for(loaded, RunOptions(max_tokens=MAX_TOKENS, batch_size=8))


@pytest.fixture(scope="module")
def alone(loaded):
    return generate_in_batches(loaded, REQUESTS, 1, MAX_TOKENS)


@pytest.mark.parametrize("schedule", ["arrival", "paper", "default"])
def test_scheduling_changes_no_answer(loaded, engine, alone, schedule):
    """Every schedule gives, token for token, what the model writes for each request alone; wrong guesses included."""
    wrong = {name: max(1, len(tokens) // 3) for name, tokens in alone.tokens.items()}
    pipeline = Pipeline(engine=engine, predictor=NoisyOracle(wrong, 0.3), scheduler=schedule)
    answers = pipeline.run(REQUESTS)
    assert list(differences(loaded, REQUESTS, answers, MAX_TOKENS)) == []
    assert {answer.id: answer.text for answer in answers} == alone.texts


def test_a_changed_answer_is_found_and_is_no_tie(loaded, engine):
    """One wrong token in one answer is reported with its place; tokens that are far apart are no tie."""
    answers = Pipeline(engine=engine, predictor="none").run(REQUESTS)
    tokens = answers[3].tokens
    other = (tokens[2] + 1) % 50
    answers[3] = replace(answers[3], tokens=(*tokens[:2], other, *tokens[3:]))
    found = list(differences(loaded, REQUESTS, answers, MAX_TOKENS))
    assert [(difference.id, difference.position) for difference in found] == [("r3", 2)]
    assert not found[0].is_tie


def test_an_answer_that_ends_too_soon_is_found(loaded, engine):
    """A missing end is a difference too, and no tie."""
    answers = Pipeline(engine=engine, predictor="none").run(REQUESTS)
    answers[0] = replace(answers[0], tokens=answers[0].tokens[:-1])
    found = list(differences(loaded, REQUESTS, answers, MAX_TOKENS))
    assert [difference.id for difference in found] == ["r0"]
    assert not found[0].is_tie


def test_batches_of_generate_count_what_they_compute(loaded, alone):
    """The baseline's answers do not depend on its batches, and padding counts as computed."""
    batched = generate_in_batches(loaded, REQUESTS, 8, MAX_TOKENS)
    assert batched.tokens == alone.tokens
    longest = [max(len(batched.tokens[r.id]) for r in REQUESTS[first : first + 8]) for first in (0, 8, 16)]
    assert batched.num_row_steps == 8 * sum(longest)
