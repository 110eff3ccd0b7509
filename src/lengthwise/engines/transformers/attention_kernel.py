"""Attention over the blocks of the cache on a CPU, compiled by numba.

PyTorch multiplies many small matrices at a fraction of the memory's speed (MKL on an AMD processor: 21 of 50 GB/s).
Here each core reads its share of the blocks once, as they lie in memory: a random order of blocks takes twice as long.
Each pair of a token and a block gives a softmax of its own; then each token's are joined, as in flash decoding.

In units of log 2: exp2 is a polynomial, so that all lanes of a register do it at once.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from lengthwise.engines.transformers.cache import BLOCK_TOKENS
from lengthwise.engines.transformers.pass_view import MASKED, Pairs

UNROLLED = 8  # rows of a matrix that are added at once; sizes of heads must be multiples of it
_ALL = 2**40  # a window that holds every token
_LOG2_E = math.log2(math.e)
_MAX_THREADS: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
_LEAST_POWER = -126  # 2 to it is the smallest normal float32

# Sums in any order and fused products, but NaN stays NaN: a row that has one must be found.
_FAST = {"contract", "reassoc", "nsz", "arcp"}
_inlined = numba.njit(inline="always", error_model="numpy", fastmath=_FAST)  # calls hide what lies where
_float, _int = np.float32, np.int32

log = logging.getLogger("lengthwise")


def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    """What is compiled is kept beside this file, or in the user's cache; where neither can be written, nowhere."""
    options: dict[str, Any] = {"parallel": True, "error_model": "numpy", "fastmath": _FAST}
    compiled: Callable[..., None]
    try:
        compiled = numba.njit(function, cache=True, **options)
    except RuntimeError:
        compiled = numba.njit(function, **options)
    return compiled


def can_attend(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Shapes as in `attend`."""
    return (
        query.device.type == "cpu"
        and query.dtype == key.dtype == value.dtype == torch.float32
        and query.shape[3] % UNROLLED == 0
        and _works()
    )


def attend(query: Tensor, key: Tensor, value: Tensor, pairs: Pairs, scaling: float, window: int | None) -> Tensor:
    """query: tokens × heads × 1 × size; key and value: blocks × key/value heads × BLOCK_TOKENS × size, keys transposed
    in memory; all float32. Returns tokens × 1 × heads × size of a value."""
    num_tokens, num_heads, _, _ = query.shape
    mixed = np.empty((len(pairs.block), num_heads, value.shape[3]), np.float32)
    highest, total = np.empty(mixed.shape[:2], np.float32), np.empty(mixed.shape[:2], np.float32)
    answer = torch.empty(num_tokens, 1, num_heads, value.shape[3])
    numba.set_num_threads(min(torch.get_num_threads(), _MAX_THREADS))
    _attend_pairs(
        np.ascontiguousarray((query[:, :, 0].detach() * (scaling * _LOG2_E)).numpy()),
        key.detach().transpose(2, 3).numpy(),
        value.detach().numpy(),
        pairs.block,
        pairs.token,
        pairs.last,
        pairs.slot,
        _ALL if window is None else window,
        np.empty((*mixed.shape[:2], BLOCK_TOKENS), np.float32),
        highest,
        total,
        mixed,
    )
    _join(highest, total, mixed, pairs.first, answer.numpy()[:, 0])
    return answer


@cache
def _works() -> bool:
    """Whether numba can compile here and has threads that several may use at once. Tried once, on one token."""
    numba.config.THREADING_LAYER = "threadsafe"  # type: ignore[attr-defined]
    key, value = torch.zeros(1, 1, UNROLLED, BLOCK_TOKENS).transpose(2, 3), torch.zeros(1, 1, BLOCK_TOKENS, UNROLLED)
    one = np.zeros(1, np.int64)
    num_threads = torch.get_num_threads()
    try:
        attend(torch.zeros(1, 1, 1, UNROLLED), key, value, Pairs(one, one, one, one, np.array([0, 1])), 1.0, None)
    except Exception as error:  # any: compilers and threading libraries fail in many ways
        log.info("attention by PyTorch's own operations: numba can't be used here (%s)", error)
        return False
    finally:
        torch.set_num_threads(num_threads)  # which numba's start changes, for they share OpenMP
    return True


@_compiled
def _attend_pairs(
    query: Any,  # tokens × heads × size, scaled
    key: Any,  # blocks × key/value heads × size × BLOCK_TOKENS
    value: Any,  # blocks × key/value heads × BLOCK_TOKENS × size
    blocks: Any,  # this and the next three: see Pairs
    tokens: Any,
    lasts: Any,
    slots: Any,
    window: int,
    weights: Any,  # room: pairs × heads × BLOCK_TOKENS
    highest: Any,  # gets the highest score: slots × heads
    total: Any,  # gets the sum of powers: slots × heads
    mixed: Any,  # gets the sum of values, by their powers: slots × heads × size
) -> None:
    num_heads = query.shape[1]
    num_shared = num_heads // key.shape[1]
    for pair in numba.prange(len(blocks)):
        block, slot, end = blocks[pair], slots[pair], lasts[pair] + 1
        for head in range(num_heads):
            _add_scores(query, tokens[pair], key, block, head // num_shared, weights, pair, head)
            for t in range(min(BLOCK_TOKENS, end - window)):
                weights[pair, head, t] = _float(MASKED)
            for t in range(end, BLOCK_TOKENS):
                weights[pair, head, t] = _float(MASKED)
            _make_powers(weights, pair, highest, total, slot, head)
        for head in range(num_heads):
            _add_values(weights, pair, value, block, head // num_shared, mixed, slot, head)


@_inlined
def _add_scores(query: Any, token: int, key: Any, block: int, kv: int, weights: Any, pair: int, head: int) -> None:
    for t in range(BLOCK_TOKENS):
        weights[pair, head, t] = _float(0)
    for i in range(0, key.shape[2], UNROLLED):
        for t in range(BLOCK_TOKENS):
            weights[pair, head, t] += (
                query[token, head, i] * key[block, kv, i, t]
                + query[token, head, i + 1] * key[block, kv, i + 1, t]
                + query[token, head, i + 2] * key[block, kv, i + 2, t]
                + query[token, head, i + 3] * key[block, kv, i + 3, t]
                + query[token, head, i + 4] * key[block, kv, i + 4, t]
                + query[token, head, i + 5] * key[block, kv, i + 5, t]
                + query[token, head, i + 6] * key[block, kv, i + 6, t]
                + query[token, head, i + 7] * key[block, kv, i + 7, t]
            )


@_inlined
def _make_powers(weights: Any, pair: int, highest: Any, total: Any, slot: int, head: int) -> None:
    """Scores become powers of 2, the highest 1."""
    high, powers = _float(MASKED), _float(0)
    for t in range(BLOCK_TOKENS):
        high = max(high, weights[pair, head, t])
    for t in range(BLOCK_TOKENS):
        power = weights[pair, head, t] - high
        if power < _float(_LEAST_POWER):
            power = _float(_LEAST_POWER)
        whole = math.floor(power + _float(0.5))
        rest = power - _float(whole)
        of_rest = _float(1.5403530e-4) * rest + _float(1.3333558e-3)  # Taylor's
        of_rest = of_rest * rest + _float(9.6181291e-3)
        of_rest = of_rest * rest + _float(5.5504109e-2)
        of_rest = of_rest * rest + _float(2.4022651e-1)
        of_rest = of_rest * rest + _float(6.9314718e-1)
        of_rest = of_rest * rest + _float(1)
        exponent = _int((_int(whole) + 127) << 23)
        weights[pair, head, t] = of_rest * exponent.view(_float)
        powers += weights[pair, head, t]
    highest[slot, head], total[slot, head] = high, powers


@_inlined
def _add_values(weights: Any, pair: int, value: Any, block: int, kv: int, mixed: Any, slot: int, head: int) -> None:
    for i in range(value.shape[3]):
        mixed[slot, head, i] = _float(0)
    for t in range(0, BLOCK_TOKENS, UNROLLED):
        for i in range(value.shape[3]):
            mixed[slot, head, i] += (
                weights[pair, head, t] * value[block, kv, t, i]
                + weights[pair, head, t + 1] * value[block, kv, t + 1, i]
                + weights[pair, head, t + 2] * value[block, kv, t + 2, i]
                + weights[pair, head, t + 3] * value[block, kv, t + 3, i]
                + weights[pair, head, t + 4] * value[block, kv, t + 4, i]
                + weights[pair, head, t + 5] * value[block, kv, t + 5, i]
                + weights[pair, head, t + 6] * value[block, kv, t + 6, i]
                + weights[pair, head, t + 7] * value[block, kv, t + 7, i]
            )


@_compiled
def _join(highest: Any, total: Any, mixed: Any, first: Any, answer: Any) -> None:
    """What each token's pairs gave, in `answer` (tokens × heads × size); the others as above."""
    for token in numba.prange(len(answer)):
        begin, end = first[token], first[token + 1]
        for head in range(answer.shape[1]):
            high, powers = highest[begin, head], _float(0)
            for slot in range(begin + 1, end):
                high = max(high, highest[slot, head])
            for i in range(answer.shape[2]):
                answer[token, head, i] = _float(0)
            for slot in range(begin, end):
                weight = _float(2.0 ** (highest[slot, head] - high))
                powers += weight * total[slot, head]
                for i in range(answer.shape[2]):
                    answer[token, head, i] += weight * mixed[slot, head, i]
            for i in range(answer.shape[2]):
                answer[token, head, i] /= powers
