"""How alike prompts are: digests of what they have in common, and MinHash over runs of words."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.int64]

SHINGLE_WORDS = 3
_PRIME = (1 << 31) - 1
_find_words = re.compile(r"\w+").findall


def normalised(text: str) -> str:
    """A prompt without case, punctuation and white space at will: what two that differ in those only have in common."""
    return " ".join(_find_words(text.lower())) or text.strip()


def runs(text: str) -> list[str]:
    """Runs of three words of a normalised text; a shorter one is one run."""
    words = text.split(" ")
    return [" ".join(words[at : at + SHINGLE_WORDS]) for at in range(max(1, len(words) - SHINGLE_WORDS + 1))]


def least_hashes(hashes: Hashes, starts: NDArray[np.integer], num: int) -> Hashes:
    """MinHash: by `num` hash functions the least hash in each piece of `hashes` (numbers below 2**31; pieces begin at
    `starts`, none is empty). Pieces × num."""
    factors, shifts = _hash_functions(num)
    if len(starts) == 1:  # at once, in a seventh of the time
        least_of_all: Hashes = ((hashes[:, None] * factors + shifts) % _PRIME).min(axis=0, keepdims=True)
        return least_of_all
    least = [
        np.minimum.reduceat((hashes * factor + shift) % _PRIME, starts)
        for factor, shift in zip(factors, shifts, strict=True)
    ]
    return np.stack(least, axis=1)


@lru_cache
def _hash_functions(num: int) -> tuple[Hashes, Hashes]:
    factors, shifts = np.random.default_rng(0).integers(1, _PRIME, (2, num))
    return factors, shifts
