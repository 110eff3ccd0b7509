"""Training the network on states that were made once: Adam, until held-out prompts say that it gets no better."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lengthwise.estimates import Floats
from lengthwise.predictors.pooled.net import Cells, Examples, NetConfig, PooledNet

MIN_SHARE = 1e-3  # an output that no example agrees with is unlikely at first, not impossible
MIN_SCALE = 1e-6  # of a state's entry that never changes: it says nothing, and must not be divided by 0


def fit_net(learned: Examples, held_out: Examples, seed: int, config: NetConfig) -> tuple[PooledNet, int]:
    """The network that says `held_out` best, and after how many epochs. The same seed gives the same network."""
    cells = Cells.of(np.concatenate([learned.lengths, held_out.lengths]))
    mean, scale = learned.states.mean(axis=0), np.maximum(learned.states.std(axis=0), MIN_SCALE)
    inputs, targets = _tensors(learned, mean, scale, cells)
    unseen = _tensors(held_out, mean, scale, cells)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _make(inputs.shape[1], targets.mean(dim=0), config)
        best, num_epochs = _train(model, inputs, targets, unseen, config)
    return PooledNet(mean, scale, _layers(best), cells), num_epochs


def _tensors(examples: Examples, mean: Floats, scale: Floats, cells: Cells) -> tuple[Tensor, Tensor]:
    states = torch.from_numpy(((examples.states - mean) / scale).astype(np.float32))
    return states, torch.from_numpy(cells.shares(examples.lengths, examples.is_censored))


def _make(width: int, shares: Tensor, config: NetConfig) -> nn.Sequential:
    """It begins near the shares that outputs have among all examples."""
    parts: list[nn.Module] = []
    for _ in range(config.num_layers):
        parts += [nn.Linear(width, config.hidden_size), nn.ReLU(), nn.Dropout(config.dropout)]
        width = config.hidden_size
    last = nn.Linear(width, len(shares))
    with torch.no_grad():
        last.bias.copy_((shares + MIN_SHARE).log())
    return nn.Sequential(*parts, last)


def _train(
    model: nn.Sequential, inputs: Tensor, targets: Tensor, unseen: tuple[Tensor, Tensor], config: NetConfig
) -> tuple[nn.Sequential, int]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    best, best_loss, best_epoch = copy.deepcopy(model), math.inf, 0
    for epoch in range(1, config.max_epochs + 1):
        model.train()
        for rows in torch.split(torch.randperm(len(inputs)), config.batch_size):
            optimizer.zero_grad()
            _loss(model(inputs[rows]), targets[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        loss = _held_out_loss(model, *unseen)
        if loss < best_loss:
            best, best_loss, best_epoch = copy.deepcopy(model), loss, epoch
        if epoch - best_epoch >= config.patience:
            break
    return best.eval(), best_epoch


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    """How surprised the outputs are: less the log of the chance of all that agrees with each length."""
    agreeing = (logits.log_softmax(dim=1).exp() * targets).sum(dim=1)
    return -agreeing.clamp_min(1e-12).log().mean()


def _held_out_loss(model: nn.Sequential, inputs: Tensor, targets: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        return float(_loss(model(inputs), targets))


def _layers(model: nn.Sequential) -> Sequence[tuple[Floats, Floats]]:
    linears = [part for part in model if isinstance(part, nn.Linear)]
    return [(part.weight.detach().T.numpy().copy(), part.bias.detach().numpy().copy()) for part in linears]
