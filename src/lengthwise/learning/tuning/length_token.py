"""The [LEN] token: a learned vector behind the prompt, whose last state a linear head sorts into bins of lengths.

The paper's baseline appends a token and fine-tunes the model. Here the token's embedding, the head and a low-rank
adapter are learned, so that the model that answers stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from lengthwise.engines.transformers.appended import PLACE, states_of_vector
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.estimates import Floats
from lengthwise.learning.tuning.config import LenConfig
from lengthwise.learning.tuning.examples import Examples, encoded
from lengthwise.learning.tuning.fitting import Batch, Example

MISSING = -1  # a sample that is not there
MAX_TEMPERATURE = 8.0


class LengthTokenModule(nn.Module):
    """A tuned model with the token's embedding and the head, and the loss of bins."""

    def __init__(self, tuned: Any, num_bins: int) -> None:
        super().__init__()
        self.tuned = tuned
        embeddings = tuned.get_base_model().get_input_embeddings().weight
        # Among the embeddings that the model knows: their middle.
        self.vector = nn.Parameter(embeddings.detach().float().mean(dim=0))
        self.head = nn.Linear(embeddings.shape[1], num_bins, device=embeddings.device, dtype=torch.float32)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: Tensor, lengths: Tensor, bins: Tensor, is_censored: Tensor) -> dict[str, Tensor]:
        device = self.vector.device
        state = states_of_vector(self.tuned.get_base_model(), input_ids.to(device), lengths.to(device), self.vector)
        return {"loss": bin_loss(self.head(state), bins.to(device), is_censored.to(device))}


def bin_loss(logits: Tensor, bins: Tensor, is_censored: Tensor) -> Tensor:
    """Mean over prompts of the mean over a prompt's samples of -log P: of the sample's bin, or of that and all above it
    where the sample is "at least". `logits` are prompts × bins; the others prompts × samples, MISSING where none is."""
    log_chances = logits.log_softmax(dim=-1)
    log_above = log_chances.flip(-1).logcumsumexp(-1).flip(-1)
    at = bins.clamp(min=0)
    log_likelihood = torch.where(is_censored, log_above.gather(1, at), log_chances.gather(1, at))
    is_there = bins != MISSING
    return -((log_likelihood * is_there).sum(dim=1) / is_there.sum(dim=1)).mean()


def num_bins(examples: Examples, config: LenConfig) -> int:
    """As many as reach the longest label, the last open at its end."""
    reached = math.ceil(float(np.nanmax(examples.lengths)) / config.bin_width)
    return min(max(reached, 2), config.max_bins)


def sorted_into_bins(examples: Examples, num: int, width: int) -> NDArray[np.int64]:
    """Bin of each label: bin i holds lengths above i × width and up to (i + 1) × width."""
    lengths = np.nan_to_num(examples.lengths, nan=1.0)
    bins = np.clip(np.ceil(lengths / width) - 1, 0, num - 1).astype(np.int64)
    return np.where(np.isnan(examples.lengths), MISSING, bins)


def labelled(examples: Examples, loaded: LoadedModel, num: int, config: LenConfig) -> list[Example]:
    bins = sorted_into_bins(examples, num, config.bin_width)
    return [
        {"input_ids": [*ids, PLACE], "bins": bins[row], "is_censored": examples.is_censored[row]}
        for row, ids in encoded(examples.requests, loaded, config.max_prompt_tokens)
    ]


def collate(examples: Sequence[Example]) -> Batch:
    """Prompts and the place of the token, padded on the right."""
    lengths = [len(example["input_ids"]) for example in examples]
    ids = torch.zeros(len(examples), max(lengths), dtype=torch.long)
    for row, example in enumerate(examples):
        ids[row, : lengths[row]] = torch.tensor(example["input_ids"])
    columns = {name: torch.from_numpy(np.stack([example[name] for example in examples])) for name in _COLUMNS}
    return {"input_ids": ids, "lengths": torch.tensor(lengths), **columns}


def fitted_temperature(logits: Floats, examples: Examples, width: int) -> float:
    """What logits (prompts × bins) are divided by so that chances fit held-out labels best (temperature scaling, arXiv
    1706.04599). 1 where no prompt could be read."""
    is_read = np.isfinite(logits).all(axis=1)
    if not is_read.any():
        return 1.0
    logits, bins = logits[is_read], sorted_into_bins(examples, logits.shape[1], width)[is_read]
    columns = torch.from_numpy(bins), torch.from_numpy(examples.is_censored[is_read])

    def loss(log_temperature: float) -> float:
        return float(bin_loss(torch.from_numpy(logits / math.exp(log_temperature)).float(), *columns))

    bound = math.log(MAX_TEMPERATURE)
    return float(math.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x))


_COLUMNS = ("bins", "is_censored")
