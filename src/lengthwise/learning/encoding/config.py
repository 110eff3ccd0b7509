"""How an encoder is fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass

from lengthwise.predictors.encoder.predictor import MAX_MODEL_TOKENS


@dataclass(frozen=True)
class EncoderConfig:
    """Chosen on folds of Alpaca's training file with all-MiniLM-L6-v2; `docs/encoder.md` has what else was tried.
    Raises ValueError on a value out of range."""

    encoder: str | None = None  # folder or hub id; None: the installed all-MiniLM-L6-v2, else that of the hub
    epochs: int = 4
    batch_size: int = 32
    learning_rate: float = 2e-4  # of the last layer; what is new learns at `head_factor` times that
    head_factor: float = 10.0
    layer_decay: float = 0.9  # each layer below learns at so much of the rate of the one above
    weight_decay: float = 0.01
    warmup_share: float = 0.06  # of all steps
    dropout: float = 0.1
    max_tokens: int = 128  # of a prompt, 2,048 at most; what is longer keeps its head and its tail
    hidden_width: int = 256
    num_networks: int = 3  # whose chances are averaged: each takes its time, in training and in use
    is_quantized: bool = True  # matrices in 8 bits, for use: training has 32
    text_share: float = 0.25  # of the chances is the text predictor's; 0 leaves it out
    num_bins: int = 48
    smoothing: float = 0.1  # spread of a label, in parts of the root of the median length

    def __post_init__(self) -> None:
        least = {"epochs": 1, "batch_size": 1, "max_tokens": 8, "hidden_width": 1, "num_bins": 2, "num_networks": 1}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {lowest} or more.")
        if self.max_tokens > MAX_MODEL_TOKENS:
            raise ValueError(f"max_tokens is {self.max_tokens}; it must be {MAX_MODEL_TOKENS} or fewer.")
        for name in ("learning_rate", "head_factor", "layer_decay", "smoothing"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0.")
        for name in ("warmup_share", "dropout", "weight_decay", "text_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more and below 1.")
