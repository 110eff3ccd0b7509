"""What the text predictor sees of a prompt: a bag of terms."""

from __future__ import annotations

import re
from itertools import pairwise

from lengthwise.types import Request, message_text

# Words, and punctuation marks one by one.
_find_words = re.compile(r"\w+|[^\w\s]").findall

# A longer prompt keeps its head and its tail, where instructions stand: reading it all would cost 60 ms a megabyte.
MAX_PART_CHARACTERS = 4_000

# The opening ("Write a short story", "What is the") says most. In four-fold cross-validation on 10,000 Alpaca prompts
# (Vicuna's lengths, maximum of four) tagged n-grams of the first four words take the error from 68.3 to 66.4 tokens
# and Kendall's tau from 0.534 to 0.545; longer openings, trigrams, characters and counts (words, digits, lines) give
# nothing more.
OPENING_WORDS = 4


def prompt_text(request: Request) -> str:
    """A prompt as one text, the message that is to be answered first: chats open with their system prompt instead."""
    if isinstance(request.prompt, str):
        return request.prompt
    return "\n".join(map(message_text, reversed(request.prompt)))


def clip(text: str) -> str:
    """A long text's head and tail; any other as it is."""
    if len(text) <= 2 * MAX_PART_CHARACTERS:
        return text
    return text[:MAX_PART_CHARACTERS] + "\n" + text[-MAX_PART_CHARACTERS:]


def terms(text: str) -> list[str]:
    """Words and pairs of words of the first line, n-grams of its opening (`^`), and words of the other lines (`2:`).

    Lines are told apart because what follows the first is mostly material to work on: kept apart, and without pairs,
    it takes the error from 66.4 to 65.7 tokens and a third off the time. No term holds a line break.
    """
    first, _, rest = clip(text).strip().lower().partition("\n")
    words = _find_words(first)
    found = words + [f"{left} {right}" for left, right in pairwise(words)]
    found += [f"2:{word}" for word in _find_words(rest)]
    opening = words[:OPENING_WORDS]
    for size in range(1, len(opening) + 1):
        found += ["^" + " ".join(opening[start : start + size]) for start in range(len(opening) - size + 1)]
    return found
