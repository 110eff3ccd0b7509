"""What the model's last layer makes of prompts, pooled while answers' own passes read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lengthwise.engines.transformers.hidden import entropies
from lengthwise.engines.transformers.rows import Row
from lengthwise.protocols import Pooling
from lengthwise.types import PromptRead

_LEAST_WEIGHT = 1e-12  # a prompt of whose tokens the model is certain throughout is pooled evenly


class PromptPool:
    """The states that `Backbone.states` gives, as a by-product: no pass is made for them, and none becomes another one.

    Entering reads a prompt but for its last token, which the row's first step reads. In between a row has the sums of
    what came: weighted states (width, float32) and weights. Rows that go on after a cut were read before.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._body: Any = model.base_model
        self._pooling: Pooling | None = None
        self._sums: dict[Row, tuple[Tensor, Tensor] | None] = {}  # None: nothing was read yet
        self._read: list[PromptRead] = []

    def set_pooling(self, pooling: Pooling | None) -> bool:
        """From now on; None: nothing is pooled. False where the model has no body whose output could be seen."""
        can_pool = self._body is not self._model
        self._pooling = pooling if can_pool else None
        return can_pool

    @contextmanager
    def watching(self) -> Iterator[list[Tensor]]:
        """While entered, what the last layer gives (rows × tokens × width) is kept in the list, if a row is new."""
        seen: list[Tensor] = []
        if not self._sums:
            yield seen
            return
        handle = self._body.register_forward_hook(lambda body, inputs, output: seen.append(output[0]))
        try:
            yield seen
        finally:
            handle.remove()

    def expect(self, rows: Sequence[Row]) -> None:
        """These enter."""
        if self._pooling is not None:
            self._sums |= {row: None for row in rows if not row.tokens}

    def add_prompts(self, read: Sequence[tuple[Row, Tensor]]) -> None:
        """Rows were read, but for their last tokens: what the last layer gave (tokens × width)."""
        self._sums |= self._summed([(row, hidden) for row, hidden in read if row in self._sums])

    def add_last(self, rows: Sequence[Row], hidden: Tensor) -> None:
        """A step read the last tokens of those that are new: rows × 1 × width."""
        new = [(row, hidden[index]) for index, row in enumerate(rows) if row in self._sums]
        if new:
            found = torch.stack([self._pooled(row, *last) for row, last in self._summed(new).items()]).cpu()
            self._read += [PromptRead(row.id, state) for (row, _), state in zip(new, found.numpy(), strict=True)]
            for row, _ in new:
                self.forget(row)

    def forget(self, row: Row) -> None:
        self._sums.pop(row, None)

    def clear(self) -> None:
        self._sums, self._read = {}, []

    def take(self) -> list[PromptRead]:
        """What was read since."""
        read, self._read = self._read, []
        return read

    def _summed(self, new: Sequence[tuple[Row, Tensor]]) -> dict[Row, tuple[Tensor, Tensor]]:
        """Weighted states and weights of each row's tokens (tokens × width). The weights of all are made at once."""
        if not new:
            return {}
        all_weights = self._weights(torch.cat([states for _, states in new]))
        pieces = torch.split(all_weights, [len(states) for _, states in new])
        return {
            row: (weights @ states.float(), weights.sum()) for (row, states), weights in zip(new, pieces, strict=True)
        }

    def _pooled(self, row: Row, state: Tensor, weight: Tensor) -> Tensor:
        before = self._sums[row]
        if before is not None and self._pooling != "last":
            state, weight = state + before[0].to(state.device), weight + before[1].to(weight.device)
        return state / weight

    def _weights(self, states: Tensor) -> Tensor:
        if self._pooling == "entropy":
            return entropies(self._model, states) + _LEAST_WEIGHT
        return torch.ones(len(states), device=states.device)
