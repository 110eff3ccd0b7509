"""What can be asked of the transformers engine: which model, and how to run it. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lengthwise.errors import ModelError, UsageError

DTYPES = ("float32", "float16", "bfloat16")
Loop = Literal["auto", "rows", "generate"]


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Which model, and how it is loaded. Raises ModelError on a value or a combination that can't be."""

    model: str | None = None
    """Hub id or folder; None, or `bundled` where no folder has that name: the bundled model."""
    revision: str | None = None
    """Branch, tag or commit on the hub; None: its main branch. A folder has none."""
    dtype: str = "auto"
    """float32, float16 or bfloat16; auto: float32 on a CPU, where 16 bit are slow and answers are promised to be
    identical, and what the checkpoint is stored in elsewhere."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto: CUDA, MPS, CPU, the first that is there."""
    device_map: str | None = None
    """`auto`, `balanced`, ... as accelerate takes it, for a model that is larger than one device."""
    adapter: str | None = None
    """A LoRA adapter's folder or hub id, as peft saves it; it stays unmerged."""
    quantization: Literal["4bit", "8bit"] | None = None
    """Quantise while loading (bitsandbytes). None: as stored; checkpoints that are quantised just load."""
    chat_template: str = "auto"
    """`auto`: the model's own, or none; `none`: the prompt as it is; `vicuna`: Vicuna v1.1's; else a Jinja file."""
    context_tokens: int | None = None
    """Most tokens of prompt and answer together; None: what the model's configuration says."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""

    def __post_init__(self) -> None:
        if self.dtype not in ("auto", *DTYPES):
            raise ModelError(f"dtype is {self.dtype!r}; it must be auto, {', '.join(DTYPES)}.")
        if self.quantization not in (None, "4bit", "8bit"):
            raise ModelError(f"quantization is {self.quantization!r}; it must be 4bit, 8bit, or left out.")
        if self.device_map is not None and self.device != "auto":
            raise ModelError(
                f"device {self.device!r} and device_map {self.device_map!r} exclude each other: a device is for a "
                "model on one device, a device_map spreads it. Give one."
            )
        if self.context_tokens is not None and self.context_tokens < 2:
            raise ModelError(f"context_tokens is {self.context_tokens}; a prompt and an answer need 2 or more.")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a loaded model is run. Raises UsageError on a value out of range."""

    max_tokens: int = 512
    """Limit of answers whose request gives none; the paper's setting (at most 512 new tokens)."""
    batch_size: int | None = None
    """Most rows at once; None: from the memory and a short measurement on this device."""
    loop: Loop = "auto"
    """`rows`: this package's own loop; `generate`: `model.generate` in static batches; auto: rows where the model's
    cache can be held that way."""
    memory_share: float = 0.8
    """Share of the device's free memory that keys and values may take; the rest is left for activations, logits and
    fragmentation, and for other programs."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise UsageError(f"max_tokens is {self.max_tokens}; it must be 1 or more.")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"batch_size is {self.batch_size}; it must be 1 or more, or left out to be measured.")
        if self.loop not in ("auto", "rows", "generate"):
            raise UsageError(f"loop is {self.loop!r}; it must be auto, rows or generate.")
        if not 0 < self.memory_share <= 1:
            raise UsageError(f"memory_share is {self.memory_share}; it must be above 0 and at most 1.")
