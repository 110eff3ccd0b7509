"""What a model's last layer makes of prompts, and how uncertain it is of each next token: states for predictors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lengthwise.protocols import Pooling

MAX_CHUNK_LOGITS = 2**22  # 16 MiB in float32, however large the vocabulary is


def last_hidden(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """The last layer's states behind the last norm, prompts × tokens × width, for ids padded on the right.

    No mask: no token of a causal model sees what stands behind it, so padding on the right changes no state before it.
    """
    body: Any = model.base_model
    if body is not model:
        found: Tensor = body(input_ids=ids, use_cache=False).last_hidden_state
        return found
    caller: Any = model
    last: Tensor = caller(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states[-1]
    return last


def pooled(model: PreTrainedModel, hidden: Tensor, lengths: Sequence[int], pooling: Pooling) -> Tensor:
    """One state a prompt, prompts × width in float32, from `hidden` (prompts × tokens × width) whose first `lengths`
    tokens are the prompts': `mean`, `last`, or weighed by `entropies`."""
    return torch.stack(
        [pool_one(model, row[:num], pooling) for row, num in zip(hidden, lengths, strict=True)]  # ragged: row by row
    )


def pool_one(model: PreTrainedModel, hidden: Tensor, pooling: Pooling) -> Tensor:
    """The state of one prompt, width in float32, from those of its tokens (tokens × width)."""
    if pooling == "last":
        return hidden[-1].float()
    if pooling == "mean":
        return hidden.float().mean(dim=0)
    entropy = entropies(model, hidden)
    total = entropy.sum()
    weights = torch.where(total > 0, entropy / total, 1 / len(entropy))
    return weights @ hidden.float()


def entropies(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """How uncertain the model is of the token behind each (nats, float32, tokens), from states behind the last norm
    (tokens × width). The logits of all tokens are never there at once."""
    head: Any = model.get_output_embeddings()
    vocabulary_size = len(head.weight)
    num = max(1, MAX_CHUNK_LOGITS // vocabulary_size)
    return torch.cat([_entropy(_shaped(head(chunk), model).float()) for chunk in torch.split(hidden, num)])


def _entropy(logits: Tensor) -> Tensor:
    log_chances = logits.log_softmax(dim=-1)
    return -(log_chances.exp() * log_chances).nan_to_num(nan=0.0).sum(dim=-1)  # a chance of 0 adds nothing


def _shaped(logits: Tensor, model: PreTrainedModel) -> Tensor:
    """What some families do behind their head: Cohere and Granite scale, Gemma 2 bends."""
    config = model.config.get_text_config()
    logits = logits * (getattr(config, "logit_scale", None) or 1) / (getattr(config, "logits_scaling", None) or 1)
    softcap = getattr(config, "final_logit_softcapping", None)
    return logits if not softcap else softcap * torch.tanh(logits / softcap)
