"""Which passes are timed, and until when."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from lengthwise.engines.transformers.cache import num_blocks_for
from lengthwise.engines.transformers.engine import is_out_of_memory
from lengthwise.engines.transformers.pass_timer import MAX_READ_TOKENS

# Fewer and more tokens a row than CONTEXT_TOKENS: whole blocks less a half, for half a block is what a row wastes on
# average.
SHORT_TOKENS, LONG_TOKENS = 32, 608
MAX_ROWS = 1024
# Two doublings in a row that give less than 10 % each end the measurement; one may be noise.
IMPROVEMENT = 1.1
# After 30 s (a large model on a CPU) what is known must do; contexts and readings have 10 s beside that.
MAX_PROBE_S = 30.0
MAX_MORE_S = 10.0
# Prompts and their tokens, read at once: a few that ride along with a step, and more that take a pass.
READS = ((1, 32), (4, 32), (1, 128), (4, 128), (1, 512), (8, 128))
# More rows never take less time. Where they seemed to, by more than this, something else ran on the device: what was
# measured then is measured again, twice at most; what is still so is used (the shorter time holds for both), not kept.
MAX_CONTRADICTION = 1.5

Timed = tuple[tuple[int, int, float], ...]  # rows, tokens of each, seconds


def measure(
    step_s: Callable[[int], float], max_rows: int, clock: Callable[[], float] = time.monotonic
) -> tuple[tuple[tuple[int, float], ...], bool]:
    """Samples of `step_s(rows)` for 1, 2, 4, ... rows until the rate stops to improve, and whether memory ended it."""
    samples: list[tuple[int, float]] = []
    best, num_stale, deadline_s = 0.0, 0, clock() + MAX_PROBE_S
    for rows in _row_counts(max_rows):
        try:
            samples.append((rows, step_s(rows)))
        except RuntimeError as error:
            if not samples or not is_out_of_memory(error):
                raise
            return tuple(samples), True
        rate = rows / samples[-1][1]
        num_stale = 0 if rate > IMPROVEMENT * best else num_stale + 1
        best = max(best, rate)
        if num_stale == 2 or clock() > deadline_s:
            return tuple(samples), False
    return tuple(samples), samples[-1][0] < MAX_ROWS


def measure_points(
    seconds: Callable[[int, int], float],
    points: Sequence[tuple[int, int]],
    deadline_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> Timed:
    """`seconds(rows, tokens)` of each point, in order, until memory ends or the next one would probably outlast the
    deadline: as many times longer than the last as it has more tokens. The first is always measured."""
    found: list[tuple[int, int, float]] = []
    for rows, tokens in points:
        if found:
            num_passes = 2  # the first of a long one does not count
            likely_s = num_passes * found[-1][2] * max(1.0, rows * tokens / (found[-1][0] * found[-1][1]))
            if clock() + likely_s > deadline_s:
                break
        try:
            found.append((rows, tokens, seconds(rows, tokens)))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            break
    return tuple(found)


def context_points(
    max_rows: int, max_blocks: int, context_tokens: int, max_context_tokens: int
) -> list[tuple[int, int]]:
    """Rows and tokens a row: one and many rows with many tokens, many with few. `max_rows` are worth running at
    `context_tokens`; all fit into `max_blocks`."""
    points: dict[tuple[int, int], None] = {}
    for tokens in (min(LONG_TOKENS, max_context_tokens), min(SHORT_TOKENS, max_context_tokens)):
        most = min(max_rows, max_blocks // num_blocks_for(tokens))
        if tokens != context_tokens and most:
            points |= dict.fromkeys([(1, tokens), (max(1, most // 4), tokens), (most, tokens)])
    return list(points)


def read_points(max_blocks: int, max_context_tokens: int) -> list[tuple[int, int]]:
    """Those of READS that fit; a single token where none does."""
    found = [
        (rows, tokens)
        for rows, tokens in READS
        if tokens < max_context_tokens
        and rows * tokens <= MAX_READ_TOKENS
        and rows * num_blocks_for(tokens + 1) <= max_blocks
    ]
    return found or [(1, 1)]


def without_contradictions(samples: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """The same, no count of rows slower than a larger one."""
    return tuple((rows, min(seconds for _, seconds in samples[i:])) for i, (rows, _) in enumerate(samples))


def is_plausible(samples: Sequence[tuple[int, float]]) -> bool:
    clean = without_contradictions(samples)
    return all(raw <= MAX_CONTRADICTION * least for (_, raw), (_, least) in zip(samples, clean, strict=True))


def _row_counts(max_rows: int) -> Iterator[int]:
    """1, 2, 4, ... and `max_rows` itself, at most MAX_ROWS."""
    last = max(1, min(max_rows, MAX_ROWS))
    rows = 1
    while rows < last:
        yield rows
        rows *= 2
    yield last
