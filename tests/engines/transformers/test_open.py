import logging
import subprocess
import sys

import pytest

from lengthwise.engines.transformers import ModelOptions, RunOptions, memory, open_engine
from lengthwise.engines.transformers import open as open_module
from lengthwise.engines.transformers.cache import BLOCK_TOKENS, num_blocks_for
from lengthwise.engines.transformers.engine import TransformersEngine
from lengthwise.engines.transformers.generate_engine import GenerateEngine
from lengthwise.engines.transformers.loading import load_model
from lengthwise.engines.transformers.open import engine_for, row_size
from lengthwise.errors import ModelError, UsageError
from lengthwise.testing import check_engine
from lengthwise.types import Request, SamplingParams


def opened(folder, **run):
    return open_engine(ModelOptions(model=str(folder)), RunOptions(**run))


def requests():
    texts = ["A list of fruits", "Why?", "Write a letter to a friend about the sea"]
    return [Request(f"r{i}", text, SamplingParams(), max_tokens=30) for i, text in enumerate(texts)]


def test_a_model_whose_cache_can_be_held_by_rows_gets_our_own_loop(tiny_llama_dir, caplog):
    """Sized by measurement; what was decided is said, and the engine passes the checks."""
    with caplog.at_level(logging.INFO, "lengthwise"):
        engine = opened(tiny_llama_dir)
    assert isinstance(engine, TransformersEngine)
    assert engine.capabilities.max_running >= 1
    assert engine.step_cost.step_s(1) > 0
    assert "own loop" in engine.description
    assert "measured" in engine.description
    assert engine.description in caplog.text
    check_engine(engine, requests())


def test_a_model_whose_cache_can_t_gets_generate_and_the_reason(model_dir, caplog):
    """As a warning, since nobody asked for the slower way."""
    with caplog.at_level(logging.WARNING, "lengthwise"):
        engine = opened(model_dir("mamba"), max_tokens=30)
    assert isinstance(engine, GenerateEngine)
    assert engine.capabilities.max_running == 16
    assert "model.generate in batches of 16, because" in caplog.text
    check_engine(engine, requests())


def test_a_loop_may_be_asked_for(tiny_llama_dir, model_dir, caplog):
    """`generate` where rows would do is no reason to warn; `rows` where they can't be is an error with the reason."""
    with caplog.at_level(logging.WARNING, "lengthwise"):
        assert isinstance(opened(tiny_llama_dir, loop="generate"), GenerateEngine)
    assert not caplog.records
    with pytest.raises(ModelError, match="our own loop, because"):
        opened(model_dir("mamba"), loop="rows")


@pytest.mark.parametrize("loop", ["rows", "generate"])
def test_a_batch_size_is_taken_and_nothing_is_measured(tiny_llama_dir, loop, monkeypatch):
    """What the user says holds."""
    monkeypatch.setattr(open_module, "probe", None)
    engine = opened(tiny_llama_dir, loop=loop, batch_size=5)
    assert engine.capabilities.max_running == 5
    assert engine.step_cost is None


@pytest.mark.parametrize("loop", ["rows", "generate"])
def test_the_default_limit_reaches_the_requests(tiny_llama_dir, loop):
    """`max_tokens` is the limit of those that give none."""
    (prepared,) = opened(tiny_llama_dir, loop=loop, batch_size=1, max_tokens=9).prepare([Request("r", "Why?")])
    assert prepared.max_tokens == 9


@pytest.mark.parametrize(("num_tokens", "max_rows"), [(300, 1), (3000, 12), (10**9, 1024)])
def test_rows_and_tokens_stay_within_a_small_memory(tiny_llama_dir, monkeypatch, num_tokens, max_rows):
    """Memory for `num_tokens` tokens: what the cache may become, blocks and growth included, is no larger."""
    loaded = load_model(ModelOptions(model=str(tiny_llama_dir)))
    token_bytes = memory.kv_layout(loaded).token_bytes
    monkeypatch.setattr(memory, "free_bytes", lambda device: num_tokens * token_bytes)
    size = row_size(loaded, RunOptions(memory_share=0.8))
    assert 1 <= size.max_running <= max_rows
    assert num_blocks_for(size.kv_tokens) * BLOCK_TOKENS * 1.25 <= 0.8 * num_tokens


def test_memory_that_ends_while_opening_is_a_model_error(tiny_llama_dir, monkeypatch):
    """One sentence instead of an allocator's report."""

    def full(loaded):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: 9 bytes")

    monkeypatch.setattr(open_module, "why_unsupported", full)
    with pytest.raises(ModelError, match="not one row"):
        engine_for(load_model(ModelOptions(model=str(tiny_llama_dir))), RunOptions())


@pytest.mark.parametrize("run", [{"max_tokens": 0}, {"batch_size": 0}, {"loop": "x"}, {"memory_share": 0.0}])
def test_run_options_that_can_t_be_are_refused_when_made(run):
    """Before a model is loaded."""
    with pytest.raises(UsageError):
        RunOptions(**run)


def test_options_load_no_torch():
    """A command's help reads them, and must not take seconds."""
    program = (
        "import sys; from lengthwise.engines.transformers import ModelOptions, RunOptions; import lengthwise.bundled; "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
