"""The next token of every row at once.

Order of operations as in Hugging Face and vLLM: repetition penalty, frequency and presence penalty, temperature,
top-k, top-p, then one draw by inverse distribution function. The draw for token i of an answer uses one uniform
number that is a pure function of (seed, i), so it depends neither on neighbours nor on where an answer was cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lengthwise.engines.transformers.rows import Row

_FLOAT32 = torch.finfo(torch.float32)

INVALID_TOKEN = -1  # what a row gets whose logits are not numbers

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def uniform(seeds: NDArray[np.uint64], steps: NDArray[np.uint64]) -> NDArray[np.float64]:
    """One number in (0, 1) for each (seed, step): two rounds of splitmix64's mixer (Steele et al. 2014), n → n."""
    with np.errstate(over="ignore"):
        mixed = _mix(_mix(seeds + _GOLDEN) + (steps + np.uint64(1)) * _GOLDEN)
    return ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


class Sampler:
    """Draws for one batch of rows; made anew whenever a row enters or leaves.

    A batch in which all rows are greedy and without penalties costs one maximum; everything else is computed only
    for the rows that ask for it.
    """

    def __init__(self, rows: Sequence[Row], vocabulary_size: int, device: torch.device) -> None:
        drawn = [(index, row) for index, row in enumerate(rows) if not row.sampling.is_greedy]
        self._draw = _Draw.of(drawn, device) if drawn else None
        penalised = [(index, row) for index, row in enumerate(rows) if _has_penalty(row)]
        self._penalties = _Penalties(penalised, vocabulary_size, device) if penalised else None

    def choose(self, logits: Tensor, num_tokens: NDArray[np.int64]) -> Tensor:
        """Next tokens (long, rows) from logits (rows × vocabulary; may be overwritten) for rows that have
        `num_tokens` answer tokens (rows). INVALID_TOKEN where a row's logits are no finite numbers."""
        logits = logits.float()
        if self._penalties is not None:
            logits = self._penalties.apply(logits)
        tokens, is_finite = _highest(logits)
        if self._draw is not None:
            tokens[self._draw.rows] = self._draw.choose(logits[self._draw.rows], num_tokens)
        tokens = torch.where(is_finite, tokens, INVALID_TOKEN)
        if self._penalties is not None:
            self._penalties.count(tokens)
        return tokens


def _highest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's likeliest token, and whether its logit is a number; a NaN is its row's maximum. On a CPU by numpy: the
    maximum takes 0.02 ms for 64 × 4096 there, by torch 0.3 to 0.5."""
    if logits.device.type != "cpu":
        tokens = logits.argmax(dim=-1)
        return tokens, logits.gather(1, tokens.unsqueeze(1)).squeeze(1).isfinite()
    numbers = logits.numpy()
    highest = numbers.argmax(axis=-1)
    is_finite = np.isfinite(numbers[np.arange(len(highest)), highest])
    return torch.from_numpy(highest), torch.from_numpy(is_finite)


def _has_penalty(row: Row) -> bool:
    s = row.sampling
    return s.repetition_penalty != 1 or s.presence_penalty != 0 or s.frequency_penalty != 0


def _column(values: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device).unsqueeze(1)


@dataclass(frozen=True)
class _Draw:
    """Temperature, top-k, top-p and seeds of the rows that are not greedy; `rows` are their places in the batch."""

    rows: Tensor
    places: NDArray[np.int64]
    seeds: NDArray[np.uint64]
    temperature: Tensor
    top_k: Tensor | None
    top_p: Tensor | None

    @classmethod
    def of(cls, drawn: Sequence[tuple[int, Row]], device: torch.device) -> _Draw:
        places = np.array([index for index, _ in drawn], dtype=np.int64)
        params = [row.sampling for _, row in drawn]
        has_top_k = any(p.top_k is not None for p in params)
        has_top_p = any(p.top_p < 1 for p in params)
        return cls(
            torch.from_numpy(places).to(device),
            places,
            np.array([(p.seed or 0) % 2**64 for p in params], dtype=np.uint64),
            _column([min(max(p.temperature, _FLOAT32.tiny), _FLOAT32.max) for p in params], device),
            _column([p.top_k or np.inf for p in params], device) if has_top_k else None,
            _column([p.top_p for p in params], device) if has_top_p else None,
        )

    def choose(self, logits: Tensor, num_tokens: NDArray[np.int64]) -> Tensor:
        # Below a maximum of 0 nothing overflows upwards, however low the temperature is; -inf stays -inf.
        logits = (logits - logits.amax(dim=-1, keepdim=True)) / self.temperature
        if self.top_k is not None or self.top_p is not None:
            logits = self._filter(logits)
        noise = uniform(self.seeds, num_tokens[self.places].astype(np.uint64))
        return _invert(logits, torch.from_numpy(noise).to(logits.device))

    def _filter(self, logits: Tensor) -> Tensor:
        """-inf for every token outside the row's top k and outside the smallest set that reaches top_p."""
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        rank = torch.arange(logits.shape[1], device=logits.device)
        if self.top_k is not None:
            ordered = ordered.masked_fill(rank >= self.top_k, -torch.inf)
        if self.top_p is not None:
            chance = ordered.softmax(dim=-1)
            before = chance.cumsum(dim=-1) - chance
            ordered = ordered.masked_fill((before >= self.top_p) & (rank > 0), -torch.inf)
        return torch.empty_like(logits).scatter_(1, order, ordered)


def _invert(logits: Tensor, noise: Tensor) -> Tensor:
    """The token at which the distribution function passes `noise`: rows × vocabulary, rows → rows. Summed in
    float64, where the device has it: in float32 the last of 100,000 small chances would be lost."""
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    reached = logits.softmax(dim=-1, dtype=wide).cumsum(dim=-1)
    target = noise.to(wide).unsqueeze(1) * reached[:, -1:]
    return torch.searchsorted(reached, target, right=True).squeeze(1).clamp_(max=logits.shape[1] - 1)


class _Penalties:
    """Repetition, presence and frequency penalties of the rows that have one, and the counts that they need."""

    def __init__(self, penalised: Sequence[tuple[int, Row]], vocabulary_size: int, device: torch.device) -> None:
        rows = [row for _, row in penalised]
        self._places = torch.tensor([index for index, _ in penalised], device=device)
        self._repetition = _column([row.sampling.repetition_penalty for row in rows], device)
        self._presence = _column([row.sampling.presence_penalty for row in rows], device)
        self._frequency = _column([row.sampling.frequency_penalty for row in rows], device)
        self._in_prompt = _counts([row.prompt for row in rows], vocabulary_size, device) > 0
        self._in_answer = _counts([row.tokens for row in rows], vocabulary_size, device)

    def apply(self, logits: Tensor) -> Tensor:
        scores = logits[self._places]
        is_written = self._in_answer > 0
        repeated = torch.where(scores > 0, scores / self._repetition, scores * self._repetition)
        scores = torch.where(self._in_prompt | is_written, repeated, scores)
        scores = scores - self._frequency * self._in_answer - self._presence * is_written
        return logits.index_copy(0, self._places, scores)

    def count(self, tokens: Tensor) -> None:
        """Note what the rows have just written."""
        written = tokens[self._places].clamp(min=0).unsqueeze(1)
        self._in_answer.scatter_add_(1, written, torch.ones_like(written, dtype=self._in_answer.dtype))


def _counts(tokens: Sequence[Sequence[int]], vocabulary_size: int, device: torch.device) -> Tensor:
    """How often each row has each token: float32, rows × vocabulary."""
    counts: NDArray[Any] = np.stack(
        [np.bincount(np.array(t, dtype=np.int64), minlength=vocabulary_size) for t in tokens]
    )
    return torch.from_numpy(counts).to(device, torch.float32)
