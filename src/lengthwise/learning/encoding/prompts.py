"""Prompts as an encoder reads them, in batches of like lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lengthwise.estimates import Floats
from lengthwise.predictors.encoder.session import Ids, TextEncoder, padded
from lengthwise.predictors.structure import structure
from lengthwise.predictors.terms import prompt_text
from lengthwise.types import Request

Indices = NDArray[np.intp]
SORTED_BATCHES = 50  # so many batches' prompts are sorted by length together: little padding, and still a mixed order


@dataclass(frozen=True, eq=False)
class EncodedPrompts:
    """Token ids of n prompts, and their structure (n × columns)."""

    ids: list[Ids]
    structure: Floats

    @classmethod
    def read(cls, requests: Sequence[Request], encoder: TextEncoder) -> EncodedPrompts:
        ids, _ = encoder.encode([prompt_text(request) for request in requests])
        return cls(ids, structure(requests))

    def batch(self, rows: Indices) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids, mask and structure of some prompts."""
        tokens, mask = padded([self.ids[row] for row in rows])
        return torch.from_numpy(tokens), torch.from_numpy(mask), torch.from_numpy(self.structure[rows])

    def by_length(self, rows: Indices) -> Indices:
        return rows[np.argsort([len(self.ids[row]) for row in rows], kind="stable")]


def shuffled_batches(prompts: EncodedPrompts, rows: Indices, size: int, rng: np.random.Generator) -> Iterator[Indices]:
    """All `rows` once, in a random order of batches of up to `size` whose prompts are about as long."""
    mixed = rng.permutation(rows)
    pieces = [mixed[start : start + size * SORTED_BATCHES] for start in range(0, len(mixed), size * SORTED_BATCHES)]
    batches = [
        ordered[start : start + size]
        for ordered in map(prompts.by_length, pieces)
        for start in range(0, len(ordered), size)
    ]
    for index in rng.permutation(len(batches)):
        yield batches[index]
