"""The training loop: AdamW, warm-up and cosine, lower layers more slowly."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lengthwise.estimates import Floats
from lengthwise.learning.encoding.bins import HeadTargets
from lengthwise.learning.encoding.config import EncoderConfig
from lengthwise.learning.encoding.network import LengthNetwork, WantedChances, loss
from lengthwise.learning.encoding.prompts import EncodedPrompts, Indices, shuffled_batches

MAX_GRADIENT = 1.0  # norm
PREDICT_ROWS = 64

log = logging.getLogger("lengthwise")


@dataclass(frozen=True, eq=False)
class Lesson:
    """What is learned: prompts, targets, and how much each head counts."""

    prompts: EncodedPrompts
    targets: HeadTargets
    head_weights: Floats

    def loss(self, network: LengthNetwork, rows: Indices) -> Tensor:
        shares, at_least = (torch.from_numpy(part[rows]) for part in (self.targets.shares, self.targets.at_least))
        return loss(network(*self.prompts.batch(rows)), shares, at_least, torch.from_numpy(self.head_weights))


def fit(network: LengthNetwork, lesson: Lesson, rows: Indices, config: EncoderConfig, seed: int, name: str) -> None:
    """Train `network` on some rows of a lesson, in place; `name` says in the log which network it is."""
    rng = np.random.default_rng(seed)
    groups = _rates(network, config)
    rates = [group["lr"] for group in groups]
    optimizer = torch.optim.AdamW(groups, fused=True)
    num_steps = math.ceil(len(rows) / config.batch_size) * config.epochs
    step, started_s = 0, time.perf_counter()
    for epoch in range(config.epochs):
        network.train()
        losses = []
        for batch in shuffled_batches(lesson.prompts, rows, config.batch_size, rng):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * _schedule(step / num_steps, config.warmup_share)
            losses.append(_step(network, lesson.loss(network, batch), optimizer))
            step += 1
        spent_s = time.perf_counter() - started_s
        log.info("%s: epoch %d of %d, loss %.3f, %.0f s", name, epoch + 1, config.epochs, np.mean(losses), spent_s)


def _step(network: LengthNetwork, found: Tensor, optimizer: torch.optim.Optimizer) -> float:
    optimizer.zero_grad()
    found.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT)
    optimizer.step()
    return float(found.detach())


def _schedule(share: float, warmup_share: float) -> float:
    """Of the full rate, when `share` of all steps are done."""
    warm = 1.0 if warmup_share == 0 else min(1.0, share / warmup_share)
    return warm * 0.5 * (1 + math.cos(math.pi * share))


def _rates(network: LengthNetwork, config: EncoderConfig) -> list[dict[str, Any]]:
    """Parameters by learning rate; matrices decay, vectors don't."""
    depth = _depths(network)
    top = max(depth.values())
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        below = top - depth[name] if name in depth else None
        factor = config.head_factor if below is None else config.layer_decay**below
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((config.learning_rate * factor, decay), []).append(parameter)
    return [{"lr": rate, "weight_decay": decay, "params": found} for (rate, decay), found in groups.items()]


def _depths(network: LengthNetwork) -> dict[str, int]:
    """How deep each of the encoder's parameters lies: its layer's number, 0 for what comes before the layers."""
    names = [name for name, _ in network.named_parameters() if name.startswith("encoder.")]
    numbers = {name: [int(part) for part in name.split(".") if part.isdigit()] for name in names}
    return {name: found[0] + 1 if found else 0 for name, found in numbers.items()}


@torch.no_grad()
def chances(model: WantedChances, prompts: EncodedPrompts, rows: Indices) -> Floats:
    """Of each bin, for some prompts (rows × bins)."""
    model.eval()
    order = prompts.by_length(np.asarray(rows))
    parts = [model(*prompts.batch(order[start : start + PREDICT_ROWS])) for start in range(0, len(order), PREDICT_ROWS)]
    found = torch.cat(parts).numpy()
    place = np.argsort(np.argsort(rows, kind="stable"), kind="stable")
    return np.asarray(found[np.argsort(order, kind="stable")][place], np.float32)
