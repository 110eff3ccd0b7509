"""A loaded model with all that an engine needs to know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lengthwise.types import Request

EncodePrompt = Callable[[Request], list[int]]
"""A request's prompt as token ids, chat template applied. Raises RequestError when it can't be (bad roles, images)."""


@dataclass(frozen=True)
class LoadedModel:
    """A causal model in evaluation mode, its tokenizer, and facts that are settled once.

    `identity` names model, revision, adapter and weights: it changes when any of them does. `context_tokens` is
    the most that prompt and answer may have together. `eos_token_ids` are all tokens that end an answer.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    identity: str
    context_tokens: int
    eos_token_ids: tuple[int, ...]
    encode_prompt: EncodePrompt

    @cached_property
    def device(self) -> torch.device:
        """Where inputs go (the embedding's device, also when the model is sharded)."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    @cached_property
    def for_passes(self) -> PreTrainedModel:
        """The model as our own loop passes through it, over the same weights; made at first use."""
        from lengthwise.engines.transformers.packing import packed

        return packed(self)
