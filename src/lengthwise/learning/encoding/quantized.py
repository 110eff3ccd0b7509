"""An encoder's matrices in 8 bits: less than two thirds of the time, and a quarter of their size.

Activations get one scale for each matrix, found on training prompts: one from the batch at hand would make a prompt's
estimate depend on its neighbours. Before that, the spread between channels is moved from the activations, where few
are large, into the weights (SmoothQuant, arXiv 2211.10438).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lengthwise.learning.encoding.export import errors_alone, exported
from lengthwise.learning.encoding.network import WantedChances
from lengthwise.learning.encoding.prompts import EncodedPrompts, Indices
from lengthwise.predictors.encoder.session import INPUTS

NUM_PROMPTS = 300  # that scales are found on; 50 gave the same error
MIGRATION = 0.8  # of the spread goes into the weights; 0.5 and 0.7 lost more, 0.9 as little
MIN_LARGEST = 1e-5


def quantized(model: WantedChances, prompts: EncodedPrompts, rows: Indices) -> bytes:
    """As ONNX, for any number of rows and tokens, with scales from some prompts. Changes `model`."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    batches = [prompts.batch(rows[at : at + 1]) for at in range(min(len(rows), NUM_PROMPTS))]
    smooth(model, batches)
    # The quantizer recommends, through the root logger, what the export has done already.
    with tempfile.TemporaryDirectory() as folder, errors_alone(None):
        whole, small = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        whole.write_bytes(exported(model))
        quantize_static(
            whole,
            small,
            _Batches(batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # Products of two activations, and what comes out of a matrix, keep their precision.
            extra_options={"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": ["MatMul"]},
        )
        return small.read_bytes()


class _Batches:
    """What the quantizer reads scales from: one input after the other, then None."""

    def __init__(self, batches: Sequence[tuple[Tensor, ...]]) -> None:
        self._left = iter(batches)

    def get_next(self) -> Mapping[str, Any] | None:
        batch = next(self._left, None)
        return None if batch is None else {name: part.numpy() for name, part in zip(INPUTS, batch, strict=True)}


class _Smoothed(nn.Module):
    """A linear layer whose inputs are divided by `factor` (one for each channel), and whose weights hold it."""

    inverse: Tensor

    def __init__(self, linear: nn.Linear, factor: Tensor) -> None:
        super().__init__()
        linear.weight.data *= factor
        self.linear = linear
        self.register_buffer("inverse", 1 / factor)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.linear(inputs * self.inverse)
        return outputs


def smooth(model: WantedChances, batches: Sequence[tuple[Tensor, ...]]) -> None:
    """Move the spread between channels into the weights, in place: what `model` says stays the same."""
    model.eval()
    for name, largest in largest_inputs(model, batches).items():
        parent, _, child = name.rpartition(".")
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        weights = linear.weight.abs().amax(0).clamp(min=MIN_LARGEST)
        factor = largest.clamp(min=MIN_LARGEST) ** MIGRATION / weights ** (1 - MIGRATION)
        setattr(model.get_submodule(parent), child, _Smoothed(linear, factor))


@torch.no_grad()
def largest_inputs(model: WantedChances, batches: Sequence[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """By linear layer of the encoders that is used: each channel's largest input."""
    found: dict[str, Tensor] = {}

    def watch(name: str, inputs: Tensor) -> None:
        largest = inputs.abs().flatten(0, -2).amax(0)
        found[name] = torch.maximum(found[name], largest) if name in found else largest

    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: watch(name, inputs[0]))
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and ".encoder." in name
    ]
    for batch in batches:
        model(*batch)
    for hook in hooks:
        hook.remove()
    return found
