"""An encoder's matrices in 8 bits: two fifths of the time, and a quarter of their size.

Activations get one scale for each matrix, found on training prompts: one from the batch at hand would make a prompt's
estimate depend on its neighbours. Before that, the spread between channels is moved from the activations, where few
are large, into the weights (SmoothQuant, arXiv 2211.10438). Layers that read the same (queries, keys and values) share
both, so it is rounded once. Products of two activations keep their precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lengthwise.learning.encoding.eight_bits import LinearIn8Bits, RoundedInput
from lengthwise.learning.encoding.export import exported
from lengthwise.learning.encoding.network import WantedChances
from lengthwise.learning.encoding.prompts import EncodedPrompts, Indices

NUM_PROMPTS = 300  # that scales are found on; 50 gave the same error
MIGRATION = 0.8  # of the spread goes into the weights; 0.5 and 0.7 lost more, 0.9 as little
MIN_LARGEST = 1e-5


def quantized(model: WantedChances, prompts: EncodedPrompts, rows: Indices) -> bytes:
    """As ONNX, for any number of rows and tokens, with scales from some prompts. Uses `model` up."""
    quantize(model, [prompts.batch(rows[at : at + 1]) for at in range(min(len(rows), NUM_PROMPTS))])
    return exported(model)


def quantize(model: WantedChances, batches: Sequence[tuple[Tensor, ...]]) -> None:
    """Put layers in 8 bits into the places of the encoders' linear layers, with scales from some prompts."""
    for shared in inputs_read(model, batches):
        rounded = RoundedInput(shared.factor, shared.low, shared.high)
        for name, linear in shared.readers.items():
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, LinearIn8Bits(linear, rounded))


@dataclass(eq=False)
class SharedInput:
    """What some linear layers (by name) read: each channel's least and largest value, 0 at most and at least."""

    low: Tensor
    high: Tensor
    readers: dict[str, nn.Linear] = field(default_factory=dict)

    def widen(self, inputs: Tensor) -> None:
        rows = inputs.flatten(0, -2)
        self.low = torch.minimum(self.low, rows.amin(0))
        self.high = torch.maximum(self.high, rows.amax(0))

    @property
    def factor(self) -> Tensor:
        """By which each channel is divided, and its weights are multiplied."""
        largest = torch.maximum(-self.low, self.high).clamp(min=MIN_LARGEST)
        weights = torch.cat([reader.weight for reader in self.readers.values()]).detach()
        return largest**MIGRATION / weights.abs().amax(0).clamp(min=MIN_LARGEST) ** (1 - MIGRATION)


@torch.no_grad()
def inputs_read(model: WantedChances, batches: Sequence[tuple[Tensor, ...]]) -> list[SharedInput]:
    """By the encoders' linear layers, from some prompts. Layers share what they read one after the other."""
    model.eval()
    found: dict[nn.Module, SharedInput] = {}
    latest: tuple[Tensor, SharedInput] | None = None

    def watch(name: str, linear: nn.Linear, inputs: Tensor) -> None:
        nonlocal latest
        if linear not in found:
            shared = latest[1] if latest and latest[0] is inputs else SharedInput(*torch.zeros(2, inputs.shape[-1]))
            shared.readers[name] = linear
            found[linear] = shared
        found[linear].widen(inputs)
        latest = inputs, found[linear]

    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs, name=name: watch(name, layer, inputs[0]))
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and ".encoder." in name
    ]
    for batch in batches:
        model(*batch)
    for hook in hooks:
        hook.remove()
    return list(dict.fromkeys(found.values()))
