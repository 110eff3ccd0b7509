"""Instruction tuning: what is learned are the digits of the length, behind the question for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.learning.labels import binned
from lengthwise.learning.tuning.config import TuningConfig
from lengthwise.learning.tuning.examples import Examples, encoded
from lengthwise.learning.tuning.fitting import Batch, Example

IGNORED = -100  # no part of the answer


class NumberModule(nn.Module):
    """A tuned model, with the loss of the answer's tokens."""

    def __init__(self, tuned: Any) -> None:
        super().__init__()
        self.tuned = tuned

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        device = self.tuned.get_base_model().get_input_embeddings().weight.device
        logits = self.tuned(input_ids=input_ids.to(device), use_cache=False).logits[:, :-1]
        following = labels[:, 1:].to(device)
        is_learned = following != IGNORED
        return {"loss": cross_entropy(logits[is_learned].float(), following[is_learned])}


def pairs(examples: Examples, loaded: LoadedModel, config: TuningConfig) -> list[Example]:
    """Prompt tokens and those of the answer for each example (`examples.requests` ask the question already): the median
    of its labels, rounded up to a multiple of the bin width."""
    numbers = binned(examples.middles(), config.bin_width)
    asked = encoded(examples.requests, loaded, config.max_prompt_tokens)
    return [_pair(ids, _answer(round(numbers[row]), loaded)) for row, ids in asked]


def collate(examples: Sequence[Example]) -> Batch:
    """Padded on the right; nothing needs a mask, as no token sees what stands behind it."""
    width = max(len(example["input_ids"]) for example in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for row, example in enumerate(examples):
        num = len(example["input_ids"])
        ids[row, :num] = torch.tensor(example["input_ids"])
        labels[row, num - example["num_learned"] : num] = ids[row, num - example["num_learned"] : num]
    return {"input_ids": ids, "labels": labels}


def _pair(ids: list[int], answer: list[int]) -> Example:
    return {"input_ids": [*ids, *answer], "num_learned": len(answer)}


def _answer(number: int, loaded: LoadedModel) -> list[int]:
    """The digits, and the token that ends an answer, where there is one."""
    tokenizer: Any = loaded.tokenizer
    digits = list(tokenizer(str(number), add_special_tokens=False)["input_ids"])
    ends = [token for token in (tokenizer.eos_token_id, *loaded.eos_token_ids) if token in loaded.eos_token_ids]
    return digits + ends[:1]
