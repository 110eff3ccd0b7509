"""Which token comes next: the noise, the filters and the penalties, against Hugging Face's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lengthwise.engines.transformers.rows import Row
from lengthwise.engines.transformers.sampling import INVALID_TOKEN, Sampler, uniform
from lengthwise.types import SamplingParams

VOCABULARY = 50
CPU = torch.device("cpu")


def row(tokens: tuple[int, ...] = (), prompt: tuple[int, ...] = (1,), **sampling: Any) -> Row:
    return Row("r", SamplingParams(**sampling), list(prompt), list(tokens), 99, 99)


def choose(logits: torch.Tensor, *rows: Row) -> list[int]:
    num_tokens = np.array([len(row.tokens) for row in rows])
    tokens: list[int] = Sampler(rows, logits.shape[1], CPU).choose(logits.clone(), num_tokens).tolist()
    return tokens


def random_logits(num_rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(num_rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3


def test_noise_is_uniform_and_independent() -> None:
    """Over 100 seeds × 1,000 tokens: strictly within (0, 1), no repetition, the moments of a uniform number, and no
    correlation between neighbouring tokens or neighbouring seeds."""
    seeds, steps = np.meshgrid(np.arange(100, dtype=np.uint64), np.arange(1000, dtype=np.uint64), indexing="ij")
    noise = uniform(seeds.ravel(), steps.ravel()).reshape(seeds.shape)
    assert 0 < noise.min() < noise.max() < 1
    assert len(np.unique(noise)) == noise.size
    assert abs(noise.mean() - 0.5) < 0.005
    assert abs(noise.var() - 1 / 12) < 0.001
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]) < 0.02


def test_greedy_takes_the_highest_logit() -> None:
    """Also beside a row that is drawn."""
    logits = random_logits(3)
    tokens = choose(logits, row(), row(temperature=5.0, seed=1), row())
    assert [tokens[0], tokens[2]] == logits.argmax(1)[[0, 2]].tolist()


def test_draws_have_the_probabilities_of_the_model() -> None:
    """20,000 draws at temperature 0.7: no token's share is further from its probability than sampling explains."""
    num = 20_000
    logits = random_logits(1)
    rows = [row(temperature=0.7, seed=seed) for seed in range(num)]
    drawn = np.bincount(choose(logits.expand(num, -1), *rows), minlength=VOCABULARY) / num
    chance = (logits[0] / 0.7).softmax(0).numpy()
    assert (np.abs(drawn - chance) < 5 * np.sqrt(chance / num) + 1e-4).all()


@settings(max_examples=25, deadline=None)
@given(
    top_p=st.sampled_from([0.05, 0.3, 0.9, 1.0]),
    top_k=st.sampled_from([None, 1, 3, 1000]),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    seed=st.integers(0, 100),
)
def test_draws_stay_within_what_hugging_face_keeps(
    top_p: float, top_k: int | None, temperature: float, seed: int
) -> None:
    """Temperature, top-k and top-p leave the tokens that Hugging Face's warpers leave, each with its probability."""
    num = 400
    logits = random_logits(1, seed)
    rows = [row(temperature=temperature, top_p=top_p, top_k=top_k, seed=i) for i in range(num)]
    drawn = np.bincount(choose(logits.expand(num, -1), *rows), minlength=VOCABULARY) / num
    scores: Any = TemperatureLogitsWarper(temperature)(None, logits)
    scores = scores if top_k is None else TopKLogitsWarper(top_k)(None, scores)
    scores = scores if top_p == 1 else TopPLogitsWarper(top_p)(None, scores)
    chance = scores[0].softmax(0).numpy()
    assert (drawn[chance == 0] == 0).all()
    assert (np.abs(drawn - chance) < 6 * np.sqrt(chance / num) + 2 / num).all()


def test_a_row_draws_the_same_whatever_its_neighbours_ask_for() -> None:
    """Alone, or beside rows with filters and penalties: the same token."""
    logits = random_logits(4)
    plain = row(temperature=1.0, seed=7, tokens=(3, 4))
    others = (row(temperature=1.0, top_p=0.5, seed=1), row(temperature=2.0, top_k=2, seed=2), row(presence_penalty=1.0))
    alone = choose(logits[:1], plain)
    assert choose(logits, plain, *others)[:1] == alone
    assert choose(logits.roll(1, 0), others[2], plain, *others[:2])[1:2] == alone


def test_repetition_penalty_is_hugging_faces_over_prompt_and_answer() -> None:
    """The tokens of the prompt and of the answer are penalised, as Hugging Face does it."""
    logits = random_logits(1)
    prompt, tokens = (1, 2, 3), (4, 4, int(logits.argmax()))
    expected: Any = RepetitionPenaltyLogitsProcessor(1.8)(torch.tensor([[*prompt, *tokens]]), logits)
    assert choose(logits, row(tokens, prompt, repetition_penalty=1.8)) == [int(expected.argmax())]


@pytest.mark.parametrize(("presence", "frequency"), [(1.5, 0.0), (0.0, 0.6), (-1.0, 0.3)])
def test_presence_and_frequency_are_openais_over_the_answer(presence: float, frequency: float) -> None:
    """logit − frequency × count − presence × (count > 0), counted in the answer only."""
    logits = random_logits(1)
    best = int(logits.argmax())
    tokens = (best, best, best, 7)
    expected = logits[0].clone()
    expected[best] -= 3 * frequency + presence
    expected[7] -= frequency + presence
    asked = row(tokens, (best, 9), presence_penalty=presence, frequency_penalty=frequency)
    assert choose(logits, asked) == [int(expected.argmax())]


def test_penalties_count_what_is_written_step_by_step() -> None:
    """A sampler that has gone on for some steps chooses like one made anew from the answer so far."""
    logits = random_logits(2)
    rows = [row(frequency_penalty=1.0), row(repetition_penalty=1.5)]
    sampler = Sampler(rows, VOCABULARY, CPU)
    for _ in range(20):
        going_on = sampler.choose(logits.clone(), np.array([len(r.tokens) for r in rows])).tolist()
        assert going_on == choose(logits, *rows)
        for one, token in zip(rows, going_on, strict=True):
            one.tokens.append(token)
    assert len(set(rows[0].tokens)) > 5, "the penalty bites"


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_p": 0.5}])
def test_logits_that_are_no_numbers_are_told(sampling: dict[str, float]) -> None:
    """NaN anywhere, or nothing finite, gives INVALID_TOKEN for that row; the others choose as ever."""
    logits = random_logits(3)
    logits[1, 5] = float("nan")
    logits[2] = -torch.inf
    rows = [row(**sampling) for _ in range(3)]
    tokens = choose(logits, *rows)
    assert tokens[1:] == [INVALID_TOKEN, INVALID_TOKEN]
    assert tokens[:1] == choose(logits[:1], rows[0])


def test_tokens_that_a_model_rules_out_are_never_drawn() -> None:
    """A logit of −inf is a probability of 0, at any draw."""
    logits = torch.full((500, VOCABULARY), -torch.inf)
    logits[:, [0, 20, 49]] = 0.0
    drawn = choose(logits, *(row(temperature=1.0, seed=seed) for seed in range(500)))
    assert set(drawn) == {0, 20, 49}


def test_a_negative_seed_is_a_seed() -> None:
    """OpenAI's seeds are signed."""
    logits = random_logits(1).expand(20, -1)
    drawn = choose(logits, *(row(temperature=3.0, seed=-seed) for seed in range(20)))
    assert len(set(drawn)) > 5


@pytest.mark.parametrize("temperature", [1e-40, 1e-300])
@pytest.mark.parametrize("filters", [{}, {"top_p": 0.9}, {"top_k": 5}])
def test_a_temperature_near_zero_is_greedy(temperature: float, filters: dict[str, Any]) -> None:
    """Logits divided by it would overflow; a token that the model rules out stays so."""
    logits = random_logits(4)
    logits[:, 7] = -torch.inf
    rows = [row(temperature=temperature, seed=seed, **filters) for seed in range(4)]
    assert choose(logits, *rows) == logits.argmax(1).tolist()


def test_a_temperature_beyond_float32_draws_any_token_that_is_not_ruled_out() -> None:
    """-inf stays -inf, however large it is."""
    logits = random_logits(1).expand(200, -1).clone()
    logits[:, 7] = -torch.inf
    drawn = choose(logits, *(row(temperature=1e300, seed=seed) for seed in range(200)))
    assert len(set(drawn)) > 30
    assert 7 not in drawn
