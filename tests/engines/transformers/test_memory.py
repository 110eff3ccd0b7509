from types import SimpleNamespace

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache

from lengthwise.engines.transformers import ModelOptions, memory
from lengthwise.engines.transformers.loading import load_model
from lengthwise.engines.transformers.memory import (
    KvLayer,
    KvLayout,
    free_bytes,
    kv_layout,
    kv_tokens,
    release_memory,
    token_budget,
)

CPU = torch.device("cpu")


def load(folder, **options):
    return load_model(ModelOptions(model=str(folder), **options))


def allocated_bytes(model, num_tokens):
    """What a DynamicCache really holds after a prompt and one step: the bytes behind its tensors."""
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(torch.ones(1, num_tokens - 1, dtype=torch.long), past_key_values=cache)
        model(torch.ones(1, 1, dtype=torch.long), past_key_values=cache)
    tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values) if tensor is not None]
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3", "gpt_neox", "gpt2", "mixtral", "qwen3"])
@pytest.mark.parametrize("num_tokens", [5, 16, 100])
def test_a_row_takes_the_bytes_that_its_cache_takes(model_dir, family, num_tokens):
    """Grouped heads, windows of 16 that are full or not, a mix of both, experts: to the byte."""
    loaded = load(model_dir(family))
    assert kv_layout(loaded).row_bytes(num_tokens) == allocated_bytes(loaded.model, num_tokens)


def test_the_dtype_counts(model_dir):
    """Half the bytes in 16 bit."""
    wide, narrow = (kv_layout(load(model_dir("llama"), dtype=dtype)) for dtype in ("float32", "float16"))
    assert (
        wide.token_bytes == 2 * narrow.token_bytes == 2 * 2 * 2 * 8 * 4
    )  # layers, keys and values, heads, size, bytes


def test_layers_that_share_a_cache_count_once(make_model_dir):
    """Gemma 3n's last layers read the cache of earlier ones."""
    sizes = dict(hidden_size_per_layer_input=8, vocab_size_per_layer_input=384, num_kv_shared_layers=2)
    sizes |= dict(altup_num_inputs=2, laurel_rank=4, num_hidden_layers=4, activation_sparsity_pattern=[0.0] * 4)
    kinds = ["sliding_attention", "full_attention"] * 2
    model = _gemma3n(layer_types=kinds, sliding_window=16, query_pre_attn_scalar=8, **sizes)
    loaded = SimpleNamespace(model=model, device=CPU)
    assert len(kv_layout(loaded).layers) == 2
    assert kv_layout(loaded).row_bytes(100) == allocated_bytes(model, 100)


def _gemma3n(**changes):
    from transformers import Gemma3nForCausalLM, Gemma3nTextConfig

    shared = dict(vocab_size=384, hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2)
    return Gemma3nForCausalLM(Gemma3nTextConfig(head_dim=8, max_position_embeddings=256, **shared, **changes)).eval()


def test_a_recurrent_model_has_no_token_limit(model_dir):
    """Its rows don't grow."""
    layout = kv_layout(load(model_dir("mamba")))
    assert layout.layers == ()
    assert kv_tokens(layout, 8, 256, 0.5) == float("inf")


layers = st.builds(KvLayer, st.integers(1, 50), st.none() | st.integers(1, 40), st.just(CPU))
layouts = st.builds(KvLayout, st.lists(layers, min_size=1, max_size=4).map(tuple))


@given(layouts, st.integers(0, 100_000), st.lists(st.integers(1, 60), min_size=1, max_size=12), st.data())
def test_rows_within_the_budget_fit_into_the_bytes(layout, num_bytes, lengths, data):
    """However the tokens are spread over at most `max_rows` rows."""
    max_rows = data.draw(st.integers(len(lengths), 20))
    if sum(lengths) <= token_budget(layout, num_bytes, max_rows, context_tokens=60):
        assert sum(layout.row_bytes(length) for length in lengths) <= num_bytes


@given(layouts, st.integers(1, 100_000), st.integers(1, 20))
def test_the_budget_wastes_nothing(layout, num_bytes, max_rows):
    """It is full contexts, or an even spread of one token more a row would not fit."""
    budget = token_budget(layout, num_bytes, max_rows, context_tokens=60)
    assert budget <= max_rows * 60
    if budget < max_rows * 60:
        assert max_rows * layout.row_bytes(budget // max_rows + 1) > num_bytes


def test_a_window_that_holds_the_context_in_fewer_bytes_lifts_the_budget():
    """A model whose layers all slide has room for full contexts where one without windows has not."""
    sliding = KvLayout((KvLayer(100, 16, CPU),))
    assert token_budget(sliding, 2 * 1600, max_rows=2, context_tokens=1000) == 2000
    assert token_budget(sliding.without_windows(), 2 * 1600, max_rows=2, context_tokens=1000) == 32


def test_the_budget_is_a_share_of_what_is_free(model_dir, monkeypatch):
    """Less memory, fewer tokens; the share is kept back."""
    layout = kv_layout(load(model_dir("llama")))
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000 * layout.token_bytes)
    assert kv_tokens(layout, max_rows=8, context_tokens=256, memory_share=0.5) == 500


def test_a_sharded_model_is_bound_by_its_fullest_device(monkeypatch):
    """Each device holds the cache of its own layers."""
    layout = KvLayout((KvLayer(10, None, CPU), KvLayer(10, None, torch.device("meta"))))
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000 if device == CPU else 500)
    assert kv_tokens(layout, max_rows=4, context_tokens=256, memory_share=1.0) == 50


def test_free_memory_of_a_cpu_is_the_machine_s_at_most():
    """And something is left, or this test would not run."""
    assert 0 < free_bytes(CPU) <= psutil.virtual_memory().total


# -- containers ------------------------------------------------------------------------------------------------


def cgroup(tmp_path, line, files):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{content}\n")
    (tmp_path / "process").write_text(f"{line}\n")
    return list(memory._cgroup_free_bytes(tmp_path, tmp_path / "process"))


def test_a_container_s_limit_counts_page_cache_as_free(tmp_path):
    """Version 2: limit minus usage plus what the kernel would drop first."""
    files = {"a/memory.max": 1000, "a/memory.current": 700, "a/memory.stat": "anon 5\ninactive_file 200"}
    assert cgroup(tmp_path, "0::/a", files) == [500]


def test_a_limit_of_a_group_around_it_holds_too(tmp_path):
    """Kubernetes sets it on the pod's group; `max` is no limit."""
    files = {"pod/c/memory.max": "max", "pod/c/memory.current": 1, "pod/memory.max": 100, "pod/memory.current": 90}
    assert cgroup(tmp_path, "0::/pod/c", files) == [10]


def test_version_1_is_read_too(tmp_path):
    """Its files have other names and a folder of their own."""
    files = {"memory/a/memory.limit_in_bytes": 100, "memory/a/memory.usage_in_bytes": 40}
    assert cgroup(tmp_path, "4:memory:/a", files) == [60]


@pytest.mark.parametrize("line", ["", "rubbish", "0::/not/there"])
def test_without_control_groups_there_is_no_such_limit(tmp_path, line):
    """Nothing is assumed."""
    assert cgroup(tmp_path, line, {}) == []


@pytest.mark.parametrize("kind", ["cuda", "mps", "cpu"])
def test_memory_is_given_back_to_the_device_that_is_used(kind, monkeypatch):
    """By the device's own call: older versions of torch have no common one."""
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append("cuda"))
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: emptied.append("mps"))
    release_memory(torch.device(kind))
    assert emptied == [kind] * (kind != "cpu")
