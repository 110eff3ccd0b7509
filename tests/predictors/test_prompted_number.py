"""What a model writes when it is asked for a number → the number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.predictors.prompted.number import first_line, read_tokens


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        ("120", 120),
        ("120.", 120),
        ("**120**", 120),
        ("~120", 120),
        ("≈ 120 tokens", 120),
        ("120tokens", 120),
        ("Number of tokens: 85", 85),
        ("１２０", 120),  # full-width digits
        ("12.5", 12.5),
        ("120\nHere is a tale of 3 brothers", 120),
    ],
)
def test_a_number_is_read(answer, tokens):
    """As models write it."""
    assert read_tokens(answer) == tokens


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        ("1,200", 1200),
        ("1.200 tokens", 1200),
        ("1 200", 1200),
        ("1\u202f200", 1200),
        ("12\u00a0000 tokens", 12_000),
        ("1.2k", 1200),
        ("2K tokens", 2000),
    ],
)
def test_thousands_are_read(answer, tokens):
    """By comma, point, spaces, and k."""
    assert read_tokens(answer) == tokens


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        ("About one hundred and twenty tokens.", 120),
        ("one hundred twenty-five", 125),
        ("Two thousand three hundred", 2300),
        ("a dozen", 12),
        ("half a thousand", 500),
        ("a hundred or so", 100),
        ("one moment", None),
        ("No one can say.", None),
    ],
)
def test_number_words_are_read(answer, tokens):
    """In English; a lone "one" counts nothing."""
    assert read_tokens(answer) == tokens


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        ("50-100", 75),
        ("50 – 100 tokens", 75),
        ("between 50 and 100", 75),
        ("from 1,000 to 2,000", 1500),
        ("fifty to a hundred", 75),
        ("two to three hundred tokens", 250),
        ("2-3k", 2500),
    ],
)
def test_a_range_is_its_middle(answer, tokens):
    """In digits and words."""
    assert read_tokens(answer) == tokens


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        ("150 words", 200),
        ("about 300 to 600 words", 600),
        ("400 characters", 100),
        ("3 sentences", None),
        ("2-3 paragraphs", None),
        ("100 %", None),
    ],
)
def test_units_count(answer, tokens):
    """Words and characters become tokens by a rule of thumb; what has no length in tokens is no length."""
    assert read_tokens(answer) == tokens


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        ("The answer to question 2 would have 150 tokens", 150),
        ("3 sentences, about 60 words", 80),
        ("2-3 paragraphs (150 tokens)", 150),
        ("GPT-4 would write 150", 150),
        ("50, 100", 50),
        ("100 150", 100),
    ],
)
def test_of_several_numbers_one_counts(answer, tokens):
    """What is called tokens or words, else the first; never their mean."""
    assert read_tokens(answer) == tokens


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "",
        " \n",
        "I can't say.",
        "-5",
        "−5 tokens",
        "0",
        "zero",
        "0.2",
        "1000000000",
        "1e9",
        "10^9",
        "nan",
        "v2.0",
    ],
)
def test_what_states_no_length_is_none(answer):
    """Nothing, no number, one that can't be. Never 0, and never an error."""
    assert read_tokens(answer) is None


@pytest.mark.parametrize("answer", ["inf", "half a million", "9" * 5000, "{}", "\ud800"])
def test_what_is_odd_is_none(answer):
    """Too large, no text, half a character."""
    assert read_tokens(answer) is None


@given(st.text(alphabet="0123456789.,- ktoanhudre\n%~", max_size=300) | st.text(max_size=300))
def test_anything_is_read_without_an_error(answer):
    """As a number from 1 to 131,072 or as none."""
    tokens = read_tokens(answer)
    assert tokens is None or 1 <= tokens <= 131_072


@pytest.mark.parametrize("piece", ["1,", "one ", "one and ", "1 ", "- ", "1.1.1.", "a ", "1-", "1 to ", "hundred "])
def test_long_answers_come_to_an_end(piece):
    """Only their beginning is read, and no pattern goes back and forth in it."""
    assert read_tokens(piece * 100_000) == read_tokens((piece * 1000)[:1000])


def test_the_first_line_is_the_first_that_holds_something():
    """Where the answer follows below."""
    assert first_line("\n  \n120\nOnce upon 3 times") == "120"
    assert first_line("") is None
    assert first_line(None) is None
