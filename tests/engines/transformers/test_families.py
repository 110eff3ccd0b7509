"""Greedy answers of every family are those of `model.generate`, one request at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from lengthwise.engines.transformers.generate_engine import GenerateEngine
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.engines.transformers.prompts import Prompts
from lengthwise.engines.transformers.supported import why_unsupported

# Families with something of their own beside those of the shared folders: learned sinks; values of another size than
# keys; attention that hands no arguments on.
OWN = {
    "GptOssConfig": {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16},
    "DeepseekV3Config": {
        "num_key_value_heads": 4,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 12,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 1,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 1,
    },
    "StableLmConfig": {},
}
# Families whose rotary positions change, from 32 tokens on, with the longest row of a batch.
LONG_ROPE = {
    "Phi3Config": {
        "pad_token_id": 0,
        "original_max_position_embeddings": 32,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10_000.0,
            "short_factor": [1.0] * 4,
            "long_factor": [4.0, 3.0, 2.0, 6.0],
        },
    },
    "LlamaConfig": {
        "max_position_embeddings": 32,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0},
    },
}
FAMILIES = ["llama", "qwen3", "mistral", "gemma2", "gemma3", "gpt_neox", "gpt2", "mixtral", "qwen3_moe"]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_are_those_of_a_request_alone(
    family: str, make_engine: Callable[..., Any], loaded_ids: Callable[..., LoadedModel], tools: Any
) -> None:
    """Sliding windows (16) are shorter than most sequences."""
    check_family(make_engine(family), tools.Alone(loaded_ids(family)), tools)


@pytest.mark.parametrize("config", OWN)
def test_so_are_those_of_families_with_a_way_of_their_own(
    config: str, make_engine: Callable[..., Any], tools: Any
) -> None:
    """They are recognised as supported, too."""
    loaded = _loaded(config, tools)
    assert why_unsupported(loaded) is None
    check_family(make_engine(loaded=loaded), tools.Alone(loaded), tools)


@pytest.mark.parametrize("config", LONG_ROPE)
def test_a_long_row_does_not_change_a_short_one(config: str, tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where positions depend on the longest row of a batch: our own loop is not for such a model, unless no row can be
    so long, and `generate` runs long rows alone, short ones together."""
    loaded = _loaded(config, tools)
    assert "rotary" in str(why_unsupported(loaded))
    assert why_unsupported(replace(loaded, context_tokens=32)) is None
    requests = [
        replace(request, max_tokens=(8, 60)[index % 2])
        for index, request in enumerate(tools.make_requests(12, seed=7, max_prompt=20))
    ]
    generate: Any = loaded.model.generate
    batches: list[tuple[int, int]] = []

    def watched(**inputs: Any) -> Any:
        num_rows, width = inputs["input_ids"].shape
        batches.append((num_rows, width + inputs["generation_config"].max_new_tokens))
        return generate(**inputs)

    engine = GenerateEngine(loaded, Prompts(loaded, 64), 12)
    monkeypatch.setattr(loaded.model, "generate", watched)
    answers = tools.Driver(engine, at_once=12).run(requests)
    monkeypatch.undo()
    for request in requests:
        tools.Alone(loaded).check(request, answers[request.id])
    assert {num_rows > 1 for num_rows, length in batches if length <= 32} == {True}
    assert {num_rows for num_rows, length in batches if length > 32} == {1}


def _loaded(config: str, tools: Any) -> LoadedModel:
    torch.manual_seed(0)
    changes = (OWN | LONG_ROPE)[config]
    shared = {
        "vocab_size": 384,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
    }
    model = AutoModelForCausalLM.from_config(getattr(transformers, config)(**{**shared, **changes})).eval()
    return LoadedModel(model, tools.IdTokenizer(), config, 256, (1, 91, 182, 273, 364), tools.encode_ids)


def check_family(engine: Any, alone: Any, tools: Any) -> None:
    """Ragged prompts and limits, rows that leave and enter on the way, some cut every nine tokens and continued:
    nothing of it changes an answer."""
    requests = tools.make_requests(12, seed=7, max_prompt=100, max_tokens=80)
    driver = tools.Driver(engine, piece=lambda request: 9 if int(request.id[1:]) % 3 == 0 else None)
    answers = driver.run(requests)
    for request in requests:
        alone.check(request, answers[request.id])
    assert len({answer.text for answer in answers.values()}) > 6, "answers vary, or the test shows nothing"
    assert driver.cuts
