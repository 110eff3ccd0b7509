"""Settings of what is tuned. `experiments/paper.toml` has the paper's, `experiments/bundled.toml` those for the bundled
model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# Learning rates by size: the paper's for Vicuna-7B, and the one that was found on the bundled model.
PAPER_PARAMETERS, PAPER_RATE = 7e9, 2e-5
SMALL_PARAMETERS, SMALL_RATE = 4e6, 5e-3
LARGE_PARAMETERS = 1e9  # from here on PEFT's choice of projections (query and value mostly) is enough to learn with

_LEAST = {
    "r": 1,
    "batch_size": 1,
    "gradient_accumulation": 1,
    "bin_width": 1,
    "max_prompt_tokens": 1,
    "max_prompts": 1,
}
_ABOVE_ZERO = ("alpha", "epochs", "learning_rate")
_OPTIONAL = ("learning_rate", "max_prompts")
_SHARES = ("dropout", "warmup_ratio", "held_out")
_CHOICES: dict[str, Sequence[str]] = {
    "schedule": ("cosine", "linear", "constant"),
    "precision": ("model", "bfloat16"),
}


@dataclass(frozen=True, kw_only=True)
class TuningConfig:
    """How a model is tuned with low-rank adapters (LoRA, arXiv 2106.09685). Raises ValueError on a value that
    can't be."""

    r: int = 8
    """Rank of each adapter; the paper's."""
    alpha: int = 16
    """An adapter's output counts `alpha / r` times; the paper's."""
    dropout: float = 0.05
    """Share of an adapter's inputs that are left out at each step; the paper's."""
    target_modules: tuple[str, ...] | None = None
    """Last names of the projections that get an adapter, such as `q_proj`. None: all of a model below a billion
    parameters, and those that PEFT takes (query and value mostly) above."""
    learning_rate: float | None = None
    """Of AdamW, at its highest. None: by the number of parameters (`rate_for`)."""
    epochs: float = 3
    """How often each prompt is seen; the paper's."""
    batch_size: int = 32
    """Prompts at once on the device."""
    gradient_accumulation: int = 1
    """Batches a step: a step learns from this times `batch_size` prompts (the paper: 2 × 16)."""
    warmup_ratio: float = 0.03
    """Share of the steps in which the rate rises; the paper's."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rate falls afterwards; the paper's."""
    precision: Literal["model", "bfloat16"] = "model"
    """Of activations: as the weights are, or bfloat16 by autocast, for a device on which that is faster."""
    bin_width: int = 50
    """Lengths are rounded up to a multiple of this many tokens; the paper's."""
    held_out: float = 0.1
    """Share of the prompts that are not tuned on: from them is learned what errors are to be expected."""
    max_prompts: int | None = None
    """Prompts that are learned from, drawn by the seed; None: all."""
    max_prompt_tokens: int = 512
    """Longer prompts are not tuned on: a few of them would cost as much as all others."""

    def __post_init__(self) -> None:
        if isinstance(self.target_modules, list):  # as TOML has it
            object.__setattr__(self, "target_modules", tuple(self.target_modules))
        for name, least in _LEAST.items():
            _check_whole(self, name, least)
        for name in _ABOVE_ZERO:
            _check(self, name, 0 < _number(self, name) < math.inf, "a number above 0")
        for name in _SHARES:
            _check(self, name, 0 <= _number(self, name) < 1, "a number, 0 or more and below 1")
        for name, choices in _CHOICES.items():
            _check(self, name, getattr(self, name) in choices, f"one of {', '.join(choices)}")
        _check(self, "held_out", _number(self, "held_out") > 0, "above 0, as errors are learned from what is held out")
        _check(self, "target_modules", _are_names(self.target_modules), "a list of projections' names")


def _check(config: TuningConfig, name: str, is_right: bool, wanted: str) -> None:
    if not is_right:
        raise ValueError(f"{name} is {getattr(config, name)!r}; it must be {wanted}.")


def _number(config: TuningConfig, name: str) -> float:
    """NaN for what is none, and so within no range; where None is a default, 1 stands for it."""
    value = getattr(config, name)
    if value is None and name in _OPTIONAL:
        return 1
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _check_whole(config: TuningConfig, name: str, least: int) -> None:
    number = _number(config, name)
    _check(config, name, number >= least and number % 1 == 0, f"a whole number, {least} or more")


def _are_names(names: Sequence[str] | None) -> bool:
    is_list = isinstance(names, tuple) and len(names) > 0
    return names is None or (is_list and all(isinstance(name, str) and name for name in names))


@dataclass(frozen=True, kw_only=True)
class LoraConfig(TuningConfig):
    """Instruction tuning: asked for the length, the model learns to say the number."""

    max_new_tokens: int = 8
    """Of the answer that holds the number; the paper's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_whole(self, "max_new_tokens", 1)


@dataclass(frozen=True, kw_only=True)
class LenConfig(TuningConfig):
    """The [LEN] token: a vector behind the prompt is learned, and sorting its last state into bins of lengths."""

    bin_width: int = 20
    """Tokens in a bin. Held-out error on the bundled model: 26.9 tokens with 50 (the paper's), 25.0 with 20, 24.3 with
    10."""
    max_bins: int = 64
    """Most bins where the data has no limit; what is longer falls into the last."""
    head_rate: float = 1e-3
    """Learning rate of the token's vector and the head, which begin from nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_whole(self, "max_bins", 2)
        _check(self, "head_rate", 0 < _number(self, "head_rate") < math.inf, "a number above 0")


def rate_for(num_parameters: float) -> float:
    """A learning rate for a model of that many parameters: on a line, in logarithms, through the paper's for 7 billion
    and the one that was found on the bundled model, never above that. Nothing between the two was tried."""
    slope = math.log(SMALL_RATE / PAPER_RATE) / math.log(SMALL_PARAMETERS / PAPER_PARAMETERS)
    return min(SMALL_RATE, PAPER_RATE * math.exp(slope * math.log(num_parameters / PAPER_PARAMETERS)))
