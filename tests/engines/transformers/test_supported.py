"""A model whose cache can't be held in blocks is found out by trying, and the reason is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers.models.llama import modeling_llama

from lengthwise.engines.transformers.forward import RowModel
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.engines.transformers.supported import why_unsupported


@pytest.mark.parametrize(
    "family", ["llama", "qwen3", "mistral", "gemma2", "gemma3", "gpt_neox", "gpt2", "mixtral", "qwen3_moe"]
)
def test_known_families_are_supported(family: str, loaded_ids: Callable[..., LoadedModel]) -> None:
    """Each family passes the trial."""
    assert why_unsupported(loaded_ids(family)) is None


def test_a_recurrent_model_is_not(loaded_ids: Callable[..., LoadedModel]) -> None:
    """Mamba keeps a state, not keys."""
    assert why_unsupported(loaded_ids("mamba"))


def test_a_model_that_reads_its_cache_otherwise_is_found_out(
    loaded_ids: Callable[..., LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that scales its scores behind the engine's back gives other logits, and the difference is named."""
    own = modeling_llama.LlamaAttention.forward

    def forward(self: Any, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        self.scaling = 0.05 if hidden_states.shape[1] > 1 else 1.0
        return own(self, hidden_states, *args, **kwargs)

    monkeypatch.setattr(modeling_llama.LlamaAttention, "forward", forward)
    loaded = loaded_ids("llama")
    scalings = [layer.self_attn.scaling for layer in loaded.model.model.layers]
    try:
        assert "differs" in str(why_unsupported(loaded))
    finally:
        for layer, scaling in zip(loaded.model.model.layers, scalings, strict=True):
            layer.self_attn.scaling = scaling


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NotImplementedError(), "(NotImplementedError)"),
        (ValueError("no cache\nof this kind"), "(ValueError: no cache)"),
    ],
)
def test_what_the_model_raises_is_the_reason(
    error: Exception, words: str, loaded_ids: Callable[..., LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its kind and its first line, if it has one."""

    def read(self: Any, rows: Any) -> None:
        raise error

    monkeypatch.setattr(RowModel, "read", read)
    assert str(why_unsupported(loaded_ids())).endswith(words)


@pytest.mark.parametrize("row", range(3))
def test_output_that_is_no_number_is_found_out_in_any_row(
    row: int, loaded_ids: Callable[..., LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN is neither more nor less than what is allowed."""
    step = RowModel.step

    def spoilt(self: Any, rows: Any) -> torch.Tensor:
        logits = step(self, rows)
        logits[row] = float("nan")
        return logits

    monkeypatch.setattr(RowModel, "step", spoilt)
    assert "differs" in str(why_unsupported(loaded_ids()))
