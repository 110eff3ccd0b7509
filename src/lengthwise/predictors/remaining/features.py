"""What an answer that is being written shows of how long it will go on: numbers for trees to split on."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence

import numpy as np

from lengthwise.estimates import Floats, LengthEstimates
from lengthwise.predictors.residuals import Doubles
from lengthwise.predictors.structure import NAMES as STRUCTURE
from lengthwise.predictors.structure import structure
from lengthwise.types import Request

QUANTILES = (0.1, 0.5, 0.9)
NAMES = (
    "log_tokens",
    *(f"log_remaining_q{q}" for q in QUANTILES),  # what the base says, given the tokens that are there
    "log_base_median",
    "characters_a_token",
    "num_items",
    "items_left",
    "items_written_share",
    "characters_in_item",
    "characters_an_item",
    "ends_sentence",
    "ends_line",
    "ends_paragraph",
    "is_in_code",
    "num_paragraphs",
    "num_sentences",
    "characters_in_paragraph",
    "characters_a_paragraph",
    "characters_a_line",
    "is_closing",
    *STRUCTURE,
)

_ITEM = re.compile(r"^[ \t]*(?:(\d{1,3})[.):]|[-*•])[ \t]+", re.MULTILINE)
_SENTENCE = re.compile(r"[.!?。！？](?=\s|$)")
_CLOSING = re.compile(
    r"\b(?:in conclusion|in summary|to sum up|to conclude|overall|finally|lastly|all in all|i hope|hope this"
    r"|let me know|feel free|sincerely|best regards|kind regards|yours|good luck|the end)\b",
    re.IGNORECASE,
)
_TAIL = 240  # characters in which a closing phrase counts: about the last paragraph


def partial_features(
    requests: Sequence[Request], texts: Sequence[str], num_tokens: Doubles, base: LengthEstimates
) -> Floats:
    """n × len(NAMES), float32, of answers that have `num_tokens` tokens (n, 1 or more), which read `texts`. `base` is
    what was known of each before it was begun."""
    given = base.given(num_tokens)
    left = [np.log(np.clip(given.quantile(q) - num_tokens, 1, 1e6)) for q in QUANTILES]
    known = [np.log(num_tokens), *left, np.log(np.minimum(base.median, 1e6))]
    shape = structure(requests)
    asked = shape[:, STRUCTURE.index("largest_number")]
    written = [_text_row(*row) for row in zip(texts, num_tokens.tolist(), asked.tolist(), strict=True)]
    rows = np.array(written, np.float32).reshape(len(requests), -1)
    return np.hstack([np.stack(known, axis=1).astype(np.float32), rows, shape])


def _text_row(text: str, num_tokens: float, num_asked: float) -> list[float]:
    return [
        len(text) / num_tokens,
        *_items(text, num_asked),
        *_ending(text),
        *_layout(text),
        bool(_CLOSING.search(text[-_TAIL:])),
    ]


def _items(text: str, num_asked: float) -> list[float]:
    """Of a list: how many items, how many of those asked for are to come, how far the last one is; NaN of none."""
    starts = list(_ITEM.finditer(text))
    if not starts:
        return [0, math.nan, math.nan, math.nan, math.nan]
    numbers = [int(start[1]) for start in starts if start[1]]
    num = max(numbers) if numbers else len(starts)
    in_last = len(text) - starts[-1].start()
    before = [after.start() - start.start() for start, after in itertools.pairwise(starts)]
    usual = sum(before) / len(before) if before else math.nan
    is_asked = 1 < num_asked <= 100
    return [num, num_asked - num if is_asked else math.nan, num / num_asked if is_asked else math.nan, in_last, usual]


def _ending(text: str) -> list[float]:
    """Where it stands: behind a sentence, a line, a paragraph, within a block of code."""
    stripped = text.rstrip()
    space = text[len(stripped) :]
    return [stripped.endswith((".", "!", "?", "。", "！", "？")), "\n" in space, "\n\n" in space, text.count("```") % 2]


def _layout(text: str) -> list[float]:
    paragraphs = [part for part in text.split("\n\n") if part.strip()]
    lines = [line for line in text.split("\n") if line.strip()]
    last = len(paragraphs[-1]) if paragraphs else 0
    finished = paragraphs[:-1]
    usual = sum(map(len, finished)) / len(finished) if finished else math.nan
    return [len(paragraphs), len(_SENTENCE.findall(text)), last, usual, len(text) / max(len(lines), 1)]
