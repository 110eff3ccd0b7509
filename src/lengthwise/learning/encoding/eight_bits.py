"""A linear layer in 8 bits: in an exported graph onnxruntime's operators, here the same calculated in 32 bits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lengthwise.learning.encoding.attention import OPSET

MAX_ACTIVATION, MAX_WEIGHT = 255, 127  # unsigned by signed is what processors have an instruction for
MIN_SCALE = 1e-12


class RoundedInput(nn.Module):
    """Inputs (… × channels), each channel divided by its `factor`, as whole numbers from 0 to 255. `low` (0 or less)
    and `high` (0 or more) are each channel's least and largest value; what lies outside is cut."""

    inverse: Tensor
    scale: Tensor
    zero: Tensor

    def __init__(self, factor: Tensor, low: Tensor, high: Tensor) -> None:
        super().__init__()
        least, largest = (low / factor).amin(), (high / factor).amax()
        scale = ((largest - least) / MAX_ACTIVATION).clamp(min=MIN_SCALE)
        self.register_buffer("inverse", 1 / factor)
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.round(-least / scale).to(torch.uint8))

    def forward(self, inputs: Tensor) -> Tensor:
        smooth = inputs * self.inverse
        if not torch.onnx.is_in_onnx_export():
            return (torch.round(smooth / self.scale) + self.zero).clamp(0, MAX_ACTIVATION)
        parts = (smooth, self.scale, self.zero)
        return torch.onnx.ops.symbolic("QuantizeLinear", parts, dtype=torch.uint8, shape=inputs.shape, version=OPSET)


class LinearIn8Bits(nn.Module):
    """What `linear` says of inputs that are rounded: one scale for each of its outputs' weights."""

    weight: Tensor
    scales: Tensor

    def __init__(self, linear: nn.Linear, rounded: RoundedInput) -> None:
        super().__init__()
        weight = (linear.weight.detach() / rounded.inverse).T
        scales = (weight.abs().amax(0) / MAX_WEIGHT).clamp(min=MIN_SCALE)
        self.rounded = rounded
        self.bias = linear.bias
        self.register_buffer("scales", scales)
        self.register_buffer("weight", torch.round(weight / scales).to(torch.int8).contiguous())

    def forward(self, inputs: Tensor) -> Tensor:
        numbers, scale, zero = self.rounded(inputs), self.rounded.scale, self.rounded.zero
        if not torch.onnx.is_in_onnx_export():
            sums: Tensor = (numbers - zero) @ self.weight.to(inputs.dtype) * (scale * self.scales)
            return sums if self.bias is None else sums + self.bias
        parts = (numbers, self.weight, scale, self.scales, zero, None, self.bias)
        shape = (*inputs.shape[:-1], self.weight.shape[1])
        return torch.onnx.ops.symbolic(
            "com.microsoft::MatMulIntegerToFloat", parts, dtype=inputs.dtype, shape=shape, version=1
        )
