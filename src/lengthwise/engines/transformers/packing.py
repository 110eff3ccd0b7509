"""A model's matrices in the layout that this processor multiplies fastest, for our own passes.

PyTorch hands float32 matrices to MKL, which takes them as they lie, and uses half the width of an AMD processor's
registers. oneDNN uses all of it, with weights that were laid out for it once, as `torch.compile` has it do. The model
itself stays as it is: others generate with it, and put adapters on it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lengthwise.engines.transformers import memory
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.engines.transformers.sharing import sharing_weights

CPU = torch.device("cpu")
MAX_SHARE = 0.25  # of the memory that is free: what is laid out anew stands beside what was there


class PackedLinear(nn.Linear):
    """A linear layer's weights, shared with it, and a copy of them in oneDNN's layout, by which it multiplies."""

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self._packed, self.bias, "none", [], "")
        return found


def packed(loaded: LoadedModel) -> PreTrainedModel:
    """The model in modules of its own, linear layers packed; itself where none can be, or memory is scarce."""
    num_bytes = sum(module.weight.nbytes for module in loaded.model.modules() if _can_be_packed(module))
    if not 0 < num_bytes <= MAX_SHARE * memory.free_bytes(CPU):
        return loaded.model
    model = sharing_weights(loaded).model
    for name, module in list(model.named_modules()):
        if _can_be_packed(module):
            model.set_submodule(name, PackedLinear(module))
    return model


def _can_be_packed(module: nn.Module) -> bool:
    """A plain linear layer, neither quantised nor moved about (`device_map`), where this build of torch has oneDNN."""
    return (
        type(module) is nn.Linear
        and type(module.weight) is nn.Parameter
        and (module.weight.dtype, module.weight.device) == (torch.float32, CPU)
        and not hasattr(module, "_hf_hook")
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )
