"""Which prompts a saved predictor has seen, by their digests: so that scoring it on those can be told.

A file of 8 bytes a prompt in the predictor's folder, written by the commands `train` and `calibrate`. It says whether a
prompt that one has at hand is among them, and nothing else of any prompt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from lengthwise.learning.splits import normalised
from lengthwise.types import Request

FILE = "seen_prompts.bin"
DIGEST_BYTES = 8  # of SHA-256: among a million prompts, another's is taken for one of them once in 10^13

Digests = frozenset[bytes]


def digests_of(requests: Iterable[Request]) -> Digests:
    """Of the prompts, whose case, punctuation and white space do not count."""
    return frozenset(_digest(request) for request in requests)


def remember(folder: Path, digests: Digests) -> None:
    (folder / FILE).write_bytes(b"".join(sorted(digests)))


def remembered(folder: Path) -> Digests | None:
    """None where nothing was kept: a predictor of an older version, one that ships, a damaged file."""
    try:
        content = (folder / FILE).read_bytes()
    except OSError:
        return None
    starts = range(0, len(content), DIGEST_BYTES)
    return frozenset(content[start : start + DIGEST_BYTES] for start in starts)


def num_seen(digests: Digests, requests: Sequence[Request]) -> int:
    """How many of `requests` have prompts among `digests`."""
    return sum(_digest(request) in digests for request in requests)


def _digest(request: Request) -> bytes:
    text = normalised(request.text).encode(errors="surrogatepass")
    return hashlib.sha256(text).digest()[:DIGEST_BYTES]
