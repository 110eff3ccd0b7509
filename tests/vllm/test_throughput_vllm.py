"""A real vLLM as a contender: the same weights and prompts, and lengths to the token."""

from __future__ import annotations

import pytest

from lengthwise.benchmarks.throughput.generating import Generate
from lengthwise.benchmarks.throughput.vllm_cpu import VllmCpu
from lengthwise.benchmarks.throughput.workload import Setup, Workload, kv_budget
from lengthwise.bundled import MODEL_DIR
from lengthwise.engines.transformers import ModelOptions
from lengthwise.engines.transformers.loading import load_model
from lengthwise.types import Request
from tests.vllm.server import find_python

pytestmark = pytest.mark.vllm

REQUESTS = tuple(Request(f"r{i}", f"Write {i + 2} sentences about the sea.") for i in range(6))
LENGTHS = {request.id: (1, 40, 7)[i % 3] for i, request in enumerate(REQUESTS)}


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["natural", "recorded"])
def test_vllm_answers_as_generate_does(lengths):
    """Greedy answers are as long as those of `model.generate`, and nearly all of them read the same."""
    python = find_python()
    if python is None:
        pytest.skip("There is no vLLM here; `make test-vllm` makes an environment with it.")
    loaded = load_model(ModelOptions())
    longest = max(len(loaded.encode_prompt(request)) for request in REQUESTS)
    setup = Setup(loaded, str(MODEL_DIR), Workload(REQUESTS, 40, lengths), longest, kv_budget(longest, 40, None), 16)
    contender = VllmCpu("vllm_cpu", "", setup, python, threads=(1,))
    try:
        contender.warm_up(REQUESTS[:2])
        found = contender.run(REQUESTS)
    finally:
        contender.close()
    plain = Generate("arrival16", "", setup).run(REQUESTS)
    num_same = sum(found.texts[request.id] == plain.texts[request.id] for request in REQUESTS)
    assert num_same >= len(REQUESTS) - 1  # additions in another order may swap two tokens that are nearly even
    if lengths is not None:
        assert found.lengths == lengths
    assert found.num_slots == len(REQUESTS)
    assert found.idle_share is not None
