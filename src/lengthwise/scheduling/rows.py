"""Waiting requests as columns, so that a million of them are planned with a few numpy calls."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from operator import attrgetter
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lengthwise.types import Start, WaitingRequest

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Columns:
    """Requests as columns: arrays with an entry a request along their first axis. Slicing gives views, nothing is
    copied."""

    ids: NDArray[np.object_]

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        if len(parts) == 1:
            return parts[0]
        return cls(*map(np.concatenate, zip(*(vars(part).values() for part in parts), strict=True)))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, picked: slice | NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        return type(self)(*(column[picked] for column in vars(self).values()))

    def without(self, ids: Set[str]) -> Self:
        keep = np.fromiter((id not in ids for id in self.ids), np.bool_, len(self))
        return self if keep.all() else self[keep]


@dataclass(frozen=True)
class Rows(Columns):
    """Requests that wait, one entry a request in every column (int64 tokens).

    `num_tokens` are written and kept; `predicted_tokens` and `granted_tokens` count from there: how many more are
    expected (the order), and after how many more the row may be cut. `restarts` marks rows whose written tokens
    are thrown away when they start, `was_cut` those that have run before.
    """

    prompt_tokens: Ints
    num_tokens: Ints
    max_tokens: Ints
    predicted_tokens: Ints
    granted_tokens: Ints
    restarts: NDArray[np.bool_]
    was_cut: NDArray[np.bool_]

    @classmethod
    def empty(cls) -> Self:
        none = np.zeros(0, np.int64)
        no = np.zeros(0, np.bool_)
        return cls(np.zeros(0, np.object_), none, none, none, none, none, no, no)

    @property
    def room_tokens(self) -> Ints:
        """How many more tokens each answer may have within its own limit."""
        return self.max_tokens - self.num_tokens

    def starts(self, batch_tokens: int) -> list[Start]:
        """Start them all as one batch that makes at most `batch_tokens` steps, each row within its own limit."""
        caps = np.minimum(self.num_tokens + batch_tokens, self.max_tokens)
        columns = (self.ids.tolist(), caps.tolist(), self.restarts.tolist())
        return [Start(id, cap, None, restart) for id, cap, restart in zip(*columns, strict=True)]


def int_column(requests: Sequence[WaitingRequest], name: str) -> Ints:
    """One attribute of many requests as an array."""
    return np.fromiter(map(attrgetter(name), requests), np.int64, len(requests))


def ids_of(requests: Sequence[WaitingRequest]) -> NDArray[np.object_]:
    return np.fromiter((request.id for request in requests), np.object_, len(requests))
