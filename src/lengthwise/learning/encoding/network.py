"""The network: an encoder's mean and first token, beside the request's structure, and a head for each thing known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lengthwise.estimates import Floats

MIN_SPREAD = 1e-4
MAX_DEVIATION = 4.0  # of a structure column: no request is further from the others than that


class LengthNetwork(nn.Module):
    """Token ids and mask (n × tokens), structure (n × columns) → logits (n × heads × bins). The first head is the one
    that is wanted."""

    centre: Tensor
    factor: Tensor

    def __init__(self, encoder: Any, structure: Floats, num_heads: int, num_bins: int, hidden_width: int) -> None:
        """`structure`: the training prompts' columns, by which all are scaled."""
        super().__init__()
        self.encoder = encoder
        self.num_heads = num_heads
        columns = _logs(torch.from_numpy(structure))
        spread = columns.std(0, unbiased=False)
        self.register_buffer("centre", columns.mean(0))
        # What is the same for all training prompts says nothing, whatever it is elsewhere.
        self.register_buffer("factor", torch.where(spread > MIN_SPREAD, 1 / spread, 0))
        width = int(encoder.config.hidden_size)
        self.dropout = nn.Dropout(0.1)
        self.hidden = nn.Linear(2 * width + structure.shape[1], hidden_width)
        self.heads = nn.Linear(hidden_width, num_heads * num_bins)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, structure: Tensor) -> Tensor:
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        mean = (states * mask).sum(1) / mask.sum(1)
        looks = ((_logs(structure) - self.centre) * self.factor).clamp(-MAX_DEVIATION, MAX_DEVIATION)
        hidden = functional.gelu(self.hidden(self.dropout(torch.cat([mean, states[:, 0], looks], dim=1))))
        logits: Tensor = self.heads(hidden)
        # Not by `len`, which an export would keep as a number.
        return logits.view(logits.shape[0], self.num_heads, -1)


def _logs(columns: Tensor) -> Tensor:
    """Counts as logs, with their sign: one more of a few is as much as many more of many."""
    return torch.sign(columns) * torch.log1p(torch.abs(columns))


class WantedChances(nn.Module):
    """What is used: the first head's chances (n × bins), the mean of several networks'."""

    def __init__(self, networks: Sequence[LengthNetwork]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.num_columns = networks[0].centre.shape[0]

    def forward(self, input_ids: Tensor, attention_mask: Tensor, structure: Tensor) -> Tensor:
        logits = [network(input_ids, attention_mask, structure)[:, 0] for network in self.networks]
        return torch.stack([torch.softmax(one, dim=-1) for one in logits]).mean(0)


def loss(logits: Tensor, shares: Tensor, at_least: Tensor, head_weights: Tensor) -> Tensor:
    """Cross-entropy; what is known to lie in a bin or above, with the chance of all those."""
    logs = torch.log_softmax(logits, dim=-1)
    above = torch.logcumsumexp(logs.flip(-1), dim=-1).flip(-1)
    each = -(shares * logs + at_least * above).sum(-1)
    return (each * head_weights).sum(-1).mean()
