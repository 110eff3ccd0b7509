"""Does scheduling change an answer? Scheduled answers against `model.generate`, one request at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from lengthwise.benchmarks.baseline import generate_in_batches
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.types import Completion, Request

TIE_LOGITS = 1e-4  # two tokens whose logits lie this close may swap with any change of the order of additions


@dataclass(frozen=True, slots=True)
class Difference:
    """An answer that is not the same. `gap` is the distance of the two tokens' logits where they first differ, as
    the model gives them for the common beginning (infinite if they are not its two best)."""

    id: str
    position: int
    scheduled_token: int | None
    alone_token: int | None
    gap: float

    @property
    def is_tie(self) -> bool:
        return self.gap <= TIE_LOGITS


def differences(
    loaded: LoadedModel, requests: Sequence[Request], answers: Sequence[Completion], max_tokens: int
) -> Iterator[Difference]:
    """Compare greedy `answers` token by token with each request run alone; yields those that differ."""
    by_id = {answer.id: answer for answer in answers}
    for request in requests:
        alone = generate_in_batches(loaded, [request], 1, max_tokens).tokens[request.id]
        scheduled = by_id[request.id].tokens
        if scheduled != alone:
            yield _difference(loaded, request, scheduled, alone)


def _difference(
    loaded: LoadedModel, request: Request, scheduled: tuple[int, ...], alone: tuple[int, ...]
) -> Difference:
    pairs = zip(scheduled, alone, strict=False)
    position = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(scheduled), len(alone)))
    if position >= min(len(scheduled), len(alone)):  # one goes on where the other ended: no tie of two tokens
        return Difference(request.id, position, None, None, float("inf"))
    pair = (scheduled[position], alone[position])
    return Difference(request.id, position, *pair, _gap(loaded, request, alone[:position], pair))


def _gap(loaded: LoadedModel, request: Request, beginning: tuple[int, ...], pair: tuple[int, int]) -> float:
    ids = torch.tensor([loaded.encode_prompt(request) + list(beginning)], device=loaded.device)
    with torch.inference_mode():
        logits = loaded.model(input_ids=ids, use_cache=False).logits[0, -1].float()
    best = logits.topk(2)
    if set(best.indices.tolist()) != set(pair):
        return float("inf")
    return float(best.values[0] - best.values[1])
