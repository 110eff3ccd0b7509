"""Splits: what is nearly the same lies on one side, shares and seeds hold."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.errors import UsageError
from lengthwise.learning.data import LengthData
from lengthwise.learning.splits import folds, leaked, prompt_groups, split
from lengthwise.types import Request

WORDS = [a + b for a in ("ba", "ko", "lu", "mi", "no", "ri", "sa", "tu") for b in ("da", "fe", "go", "ki", "la", "me")]


def requests(texts: list[str]) -> list[Request]:
    return [Request(str(i), text) for i, text in enumerate(texts)]


def data(texts: list[str]) -> LengthData:
    return LengthData(tuple(requests(texts)), np.ones((len(texts), 1)), np.zeros((len(texts), 1), bool))


def sentence(rng: random.Random, num_words: int) -> list[str]:
    return rng.choices(WORDS, k=num_words)


def test_case_and_punctuation_do_not_count() -> None:
    """Prompts that differ in them only are the same prompt."""
    groups = prompt_groups(
        requests(["Name a river.", "name  a\nriver", "Name a lake.", "", "  ", "?!", "写故事", "写诗"])
    )
    assert groups[0] == groups[1] != groups[2]
    assert groups[3] == groups[4] != groups[5]
    assert groups[6] != groups[7]


def test_long_prompts_that_share_nearly_all_are_one() -> None:
    """One word changed in sixty makes no new prompt; half of the words changed does."""
    rng = random.Random(0)
    for _ in range(50):
        words = sentence(rng, 60)
        near, far = words.copy(), words.copy()
        near[rng.randrange(60)] = "changed"
        far[::4] = ["other"] * 15
        groups = prompt_groups(requests([" ".join(text) for text in (words, near, far)]))
        assert groups[0] == groups[1] != groups[2]


def test_prompts_of_one_template_stay_apart() -> None:
    """Short prompts that differ in what they ask for are different prompts."""
    texts = [f"Write a short story about a {word}." for word in WORDS]
    assert len(set(prompt_groups(requests(texts)).tolist())) == len(texts)


@given(st.lists(st.integers(0, 15), min_size=2, max_size=60), st.floats(0.05, 0.9), st.integers(0, 5))
def test_both_sides_hold_all_rows_and_share_no_prompt(picked: list[int], share: float, seed: int) -> None:
    """Every row lies on one side, whole prompts at a time; the share is met but for one prompt's rows."""
    texts = [f"prompt about {WORDS[index]}" for index in picked]
    try:
        learned, held_out = split(data(texts), share, seed)
    except UsageError:
        return
    assert sorted([*learned, *held_out]) == list(range(len(texts)))
    assert not {texts[i] for i in learned} & {texts[i] for i in held_out}
    largest = max(picked.count(index) for index in picked)
    assert abs(len(held_out) - share * len(texts)) <= max(largest, 1)


def test_a_seed_names_a_split() -> None:
    """The same seed gives the same split, another one another."""
    texts = [f"{word} is what?" for word in WORDS]
    first, again, other = (split(data(texts), 0.3, seed)[1].tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_what_cannot_be_split() -> None:
    """One row, one prompt, or a share that is none: an error that says why."""
    for texts in (["a"], ["a", "A."]):
        with pytest.raises(UsageError, match="can't be split"):
            split(data(texts), 0.5, 0)
    for share in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="share to hold out"):
            split(data(["a", "b"]), share, 0)


def test_leaks_are_found() -> None:
    """Held-out prompts that were learned from, in other dress too, are named by their index."""
    learned = requests(["Name a river.", "Tell a joke."])
    assert leaked(learned, requests(["Name a lake.", "tell a joke!", "Name a river."])).tolist() == [1, 2]
    assert leaked(learned, requests(["Something else."])).tolist() == []


def test_folds_hold_whole_groups() -> None:
    """Every row is held out once, with its group."""
    groups = np.array([0, 0, 1, 2, 2, 2, 3, 4])
    parts = folds(groups, 3, seed=0)
    assert sorted(np.concatenate([held_out for _, held_out in parts]).tolist()) == list(range(8))
    assert all(not set(groups[learned]) & set(groups[held_out]) for learned, held_out in parts)
