"""Weights that are laid out for our own passes: the same model, beside the one that others use."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from lengthwise.engines.transformers import memory, packing
from lengthwise.engines.transformers.model import LoadedModel

Load = Callable[..., LoadedModel]
IDS = torch.arange(3, 63).view(3, 20)

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


def fresh(loaded: LoadedModel, **parts: object) -> LoadedModel:
    return replace(loaded, model=copy.deepcopy(loaded.model), **parts)


def num_packed(model: nn.Module) -> int:
    return sum(isinstance(module, packing.PackedLinear) for module in model.modules())


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gemma2", "mixtral"])
def test_it_says_what_the_model_says(family: str, loaded_ids: Load) -> None:
    """Logits within rounding, with and without a bias, tied to the embedding or not."""
    loaded = fresh(loaded_ids(family))
    with torch.inference_mode():
        expected, found = (model(IDS).logits for model in (loaded.model, loaded.for_passes))
    assert num_packed(loaded.for_passes) > 4
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_model_itself_stays_as_it_is(loaded_ids: Load) -> None:
    """Its layers are its own; weights lie in the same memory; it is made once."""
    loaded = fresh(loaded_ids())
    layers = dict(loaded.model.named_modules())
    made = loaded.for_passes
    assert made is loaded.for_passes
    assert dict(loaded.model.named_modules()) == layers
    assert num_packed(loaded.model) == 0
    ours, theirs = (dict(model.named_parameters()) for model in (made, loaded.model))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].data_ptr() == theirs[name].data_ptr() for name in ours)


@pytest.mark.parametrize("share", [0.2, 0.3])
def test_only_where_memory_has_room(share: float, loaded_ids: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is laid out anew may take a quarter of what is free."""
    loaded = fresh(loaded_ids())
    num_bytes = sum(module.weight.nbytes for module in loaded.model.modules() if type(module) is nn.Linear)
    monkeypatch.setattr(memory, "free_bytes", lambda device: num_bytes / share)
    assert (loaded.for_passes is loaded.model) == (share > packing.MAX_SHARE)


def test_only_plain_layers_in_32_bits(loaded_ids: Load) -> None:
    """In 16 bits the model is its own; a layer of another class (an adapter's, a quantised one) is left alone."""

    class Other(nn.Linear):
        pass

    half = fresh(loaded_ids())
    half.model.to(torch.bfloat16)
    assert half.for_passes is half.model
    mixed = fresh(loaded_ids())
    first = mixed.model.model.layers[0].mlp
    first.up_proj.__class__ = Other
    packed = mixed.for_passes.model.layers[0].mlp
    assert type(packed.up_proj) is Other
    assert type(packed.down_proj) is packing.PackedLinear


def test_the_engine_passes_through_it(loaded_ids: Load, make_engine: Callable[..., object]) -> None:
    """What answers is the packed model, and what predictors ask is not."""
    loaded = fresh(loaded_ids())
    engine = make_engine(loaded=loaded)
    assert engine._model._model is loaded.for_passes
    assert num_packed(engine.backbone().loaded.model) == 0
