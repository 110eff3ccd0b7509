"""A learned vector behind a prompt, in place of a token: what a model's last layer makes of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

PLACE = 0  # any token: it stands where the vector goes


def states_of_vector(model: PreTrainedModel, ids: Tensor, lengths: Tensor, vector: Tensor) -> Tensor:
    """The last layer's states (behind the last norm) of `vector` (width) in the place of each row's last token: rows ×
    width in float32.

    `ids` (rows × tokens) are padded on the right, `lengths` (rows) counts those of the row. Nothing is masked: no token
    of a causal model sees what stands behind it. Gradients flow to `vector` and into the model.
    """
    rows, last = torch.arange(len(ids), device=ids.device), lengths - 1
    embedded = model.get_input_embeddings()(ids)
    is_last = torch.arange(ids.shape[1], device=ids.device) == last[:, None]
    embedded = torch.where(is_last[:, :, None], vector.to(embedded.dtype), embedded)
    body: Any = model.base_model
    hidden: Tensor = body(inputs_embeds=embedded, use_cache=False).last_hidden_state
    return hidden[rows, last].float()
