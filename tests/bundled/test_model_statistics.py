"""The measured numbers: they belong to these weights, follow from the recorded lengths, and lie within their bounds."""

import json

import numpy as np
import pytest

from tools.bundled_model.card import render_card
from tools.bundled_model.measure import sha256_of
from tools.bundled_model.statistics import BOUNDS, FOREIGN_BOUNDS, held_out_statistics, misses


@pytest.fixture(scope="module")
def numbers(model_dir):
    return json.loads((model_dir / "statistics.json").read_text(encoding="utf-8"))


def test_the_numbers_were_measured_on_these_weights(model_dir, numbers):
    assert numbers["model_sha256"] == sha256_of(model_dir / "model.safetensors")


def test_the_numbers_were_measured_in_full(numbers):
    how = numbers["how"]
    assert (how["num_prompts"], how["num_samples"], how["temperature"], how["max_new_tokens"]) == (1000, 4, 0.7, 512)
    assert np.shape(numbers["lengths"]) == (1000, 5)
    assert numbers["foreign"]["num_prompts"] == 1000


def test_the_numbers_follow_from_the_recorded_lengths(numbers):
    lengths = np.array(numbers["lengths"])
    recomputed = held_out_statistics(lengths[:, 0], lengths[:, 1:])
    assert recomputed == pytest.approx({name: numbers["held_out"][name] for name in recomputed})


def test_statistics_of_lengths_worked_out_by_hand():
    greedy = np.array([10, 20, 512])
    sampled = np.array([[10, 12], [20, 20], [512, 508]])
    statistics = held_out_statistics(greedy, sampled)
    assert statistics["mean_tokens"] == pytest.approx(1082 / 6)
    assert statistics["share_at_limit"] == pytest.approx(1 / 6)
    assert statistics["greedy_share_at_limit"] == pytest.approx(1 / 3)
    assert statistics["median_std_within_prompt_tokens"] == pytest.approx(np.sqrt(2))
    assert statistics["rms_std_within_prompt_tokens"] == pytest.approx(np.sqrt((2 + 0 + 8) / 3))
    assert statistics["std_between_prompts_tokens"] == pytest.approx(np.std([11, 20, 510], ddof=1))
    assert statistics["spearman_greedy_sampled"] == pytest.approx(1)


@pytest.mark.parametrize("name", BOUNDS)
def test_a_number_on_held_out_prompts_lies_within_its_bound(numbers, name):
    assert not misses(numbers["held_out"], {name: BOUNDS[name]})


@pytest.mark.parametrize("name", FOREIGN_BOUNDS)
def test_a_number_on_foreign_prompts_lies_within_its_bound(numbers, name):
    assert not misses(numbers["foreign"], {name: FOREIGN_BOUNDS[name]})


def test_the_card_shows_the_numbers(model_dir, numbers):
    training = json.loads((model_dir / "training.json").read_text(encoding="utf-8"))
    assert (model_dir / "README.md").read_text(encoding="utf-8") == render_card(numbers, training["summary"])
