"""What a user would write without this package: `model.generate` in batches, in arrival order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import GenerationConfig

from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.types import Request


@dataclass(frozen=True, slots=True)
class GeneratedBatches:
    """Greedy answers by id, as token ids (end-of-sequence included), and what computing them took.

    `num_row_steps` counts a position for every row of a batch and every step that the batch ran.
    """

    tokens: dict[str, tuple[int, ...]]
    texts: dict[str, str]
    num_row_steps: int


def generate_in_batches(
    loaded: LoadedModel, requests: Sequence[Request], batch_size: int, max_tokens: int
) -> GeneratedBatches:
    """Answer `requests` greedily, `batch_size` at a time as they come, at most `max_tokens` new tokens each."""
    tokens: dict[str, tuple[int, ...]] = {}
    texts: dict[str, str] = {}
    num_row_steps = 0
    for first in range(0, len(requests), batch_size):
        batch = requests[first : first + batch_size]
        rows = generate(loaded, [loaded.encode_prompt(request) for request in batch], max_tokens)
        num_row_steps += sum(map(len, rows))
        for request, row in zip(batch, rows, strict=True):
            tokens[request.id] = _until_end(row, loaded.eos_token_ids)
            texts[request.id] = str(loaded.tokenizer.decode(list(tokens[request.id]), skip_special_tokens=True))
    return GeneratedBatches(tokens, texts, num_row_steps)


def generate(loaded: LoadedModel, prompts: Sequence[list[int]], max_tokens: int) -> list[list[int]]:
    """New tokens of each row, as many in all; what has ended is filled up with padding."""
    pad = loaded.eos_token_ids[0] if loaded.eos_token_ids else 0  # masked, so any token will do
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=loaded.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=loaded.device)
    eos = list(loaded.eos_token_ids) or None
    config = GenerationConfig(max_new_tokens=max_tokens, do_sample=False, eos_token_id=eos, pad_token_id=pad)
    with torch.inference_mode():
        rows = loaded.model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    new_tokens: list[list[int]] = rows[:, width:].tolist()
    return new_tokens


@contextmanager
def writing_on(loaded: LoadedModel) -> Iterator[None]:
    """While entered, `generate` writes on behind an answer's end where its caller names no end-of-sequence tokens: the
    model's own settings would fill them in."""
    settings = loaded.model.generation_config
    assert settings is not None, "every loaded model has them"
    own = settings.eos_token_id
    settings.eos_token_id = None
    try:
        yield
    finally:
        settings.eos_token_id = own


def _until_end(row: list[int], eos_token_ids: Sequence[int]) -> tuple[int, ...]:
    ends = [row.index(token) for token in eos_token_ids if token in row]
    return tuple(row[: min(ends) + 1] if ends else row)
