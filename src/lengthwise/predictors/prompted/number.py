"""A language model's words → the length that they state, in tokens, or none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lengthwise.estimates import MAX_TOKENS

MAX_READ_CHARACTERS = 1_000  # of an answer; what says a number says it in a sentence

# Tokens in one of these, by OpenAI's rule of thumb for English (https://help.openai.com/en/articles/4936856): a token
# is three quarters of a word, or 4 characters. Who learns from the numbers (`train po`) corrects this, too.
TOKENS_IN = {"token": 1.0, "word": 4 / 3, "character": 1 / 4, "char": 1 / 4, "letter": 1 / 4}
# Things that are counted and have no length: a number of them says nothing.
_OTHER_UNITS = r"sentence|paragraph|line|page|point|item|bullet|step|tip|part|section|second|minute|%|percent"

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {word: number for number, word in enumerate(_SMALL.split())}
_WORDS |= {word: 10 * number for number, word in enumerate(_TENS.split(), start=2)}
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1_000, "million": 1_000_000}
_ANY_WORD = "|".join((*_WORDS, *_SCALES))
# "two to three hundred": the first is hundreds, too.
_find_shared_scale = re.compile(rf"\b({'|'.join(_WORDS)}) (to|or|-|–) ({'|'.join(_WORDS)}) ({'|'.join(_SCALES)})\b")
_ONE_OF_SCALE = rf"(?:half )?an?[ -](?=(?:{'|'.join(_SCALES)})\b)"  # "half a million"
_find_written = re.compile(rf"\b(?:{_ONE_OF_SCALE})?(?:{_ANY_WORD})(?:(?:[ -]|[ -]and[ -])(?:{_ANY_WORD}))*\b")

# 1,200, 1.200 and 1 200; by a plain space only behind one digit, or "100 150" would be one number.
_GROUPED = r"(?:\d{1,3}(?:[,.'’_\u00a0\u2009\u202f]\d{3})+|\d(?: \d{3})+)(?!\d)"
_NUMBER = rf"(?:{_GROUPED}|\d+(?:\.\d+)?)(?:\s?k\b)?"
_UNIT = rf"(?:[ -]?(?P<unit>{'|'.join(TOKENS_IN)}|{_OTHER_UNITS})s?(?![a-z]))?"
_find_numbers = re.compile(
    rf"(?<![\w.,^])(?<![a-z]-)(?P<sign>[-−]\s?)?(?P<low>{_NUMBER})(?:\s?(?:-|–|—|~|\bto\b|\band\b|\bor\b)\s?(?P<high>{_NUMBER}))?{_UNIT}"
    r"(?![\d^]|[a-z]\w*\d)"
)


@dataclass(frozen=True, slots=True)
class _Found:
    """A number with what it counts: tokens in one, None where it isn't said."""

    value: float
    tokens_in_unit: float | None


def read_tokens(answer: str | None) -> float | None:
    """The number of tokens that an answer to `question_about` states; None where it states none that can be: no number,
    one below 1 or beyond 131,072.

    Digits and English number words, `1,200`, `1.2k`, `~120`. A range (`50-100`, `between fifty and a hundred`) is its
    middle. Words and characters become tokens (TOKENS_IN). Of several numbers the first that is called tokens or words
    counts, else the first of which nothing is said; what is called sentences or lines doesn't.
    """
    text = _with_digits((answer or "")[:MAX_READ_CHARACTERS].lower())
    found = list(_numbers(text))
    named = [one for one in found if one.tokens_in_unit is not None]
    if not found:
        return None
    chosen = (named or found)[0]
    tokens = chosen.value * (chosen.tokens_in_unit or 1.0)
    return tokens if 1 <= tokens <= MAX_TOKENS else None


def first_line(answer: str | None) -> str | None:
    """The first line that isn't empty: of an answer in the form `pia` the one with the number."""
    lines = (line for line in (answer or "").splitlines() if line.strip())
    return next(lines, None)


def _numbers(text: str) -> Iterator[_Found]:
    for match in _find_numbers.finditer(text):
        unit = match["unit"]
        if unit is not None and unit not in TOKENS_IN:
            continue
        low, high = match["low"], match["high"] or match["low"]
        if high.endswith("k") and not low.endswith("k"):
            low = f"{low}k"  # "2-3k"
        value = (_value(low) + _value(high)) / 2
        yield _Found(-value if match["sign"] else value, TOKENS_IN[unit] if unit else None)


def _value(number: str) -> float:
    is_thousands = number.endswith("k")
    digits = number.removesuffix("k").strip()
    grouped = re.fullmatch(_GROUPED, digits) is not None
    value = float(re.sub(r"\D", "", digits) if grouped else digits)
    return value * 1_000 if is_thousands else value


def _with_digits(text: str) -> str:
    """Number words as digits. A lone "one" stays, which counts nothing mostly ("one moment")."""
    text = _find_shared_scale.sub(r"\1 \4 \2 \3 \4", text)
    return _find_written.sub(lambda match: match[0] if match[0] == "one" else f"{_written(match[0]):.12g}", text)


def _written(words: str) -> float:
    """Of number words in English order: one hundred and twenty-five, half a million."""
    total, group = 0.0, 0.0
    for word in re.split(r"[ -]+", words):
        if word in _WORDS:
            group += _WORDS[word]
        elif word == "half":
            group = 0.5
        elif word in _SCALES:
            group = (group or 1) * _SCALES[word]
            if _SCALES[word] >= 1_000:
                total, group = total + group, 0.0
    return total + group
