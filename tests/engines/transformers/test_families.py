"""Greedy answers of every family are those of `model.generate`, one request at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lengthwise.engines.transformers.model import LoadedModel

FAMILIES = ["llama", "qwen3", "mistral", "gemma2", "gemma3", "gpt_neox", "gpt2", "mixtral", "qwen3_moe"]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_are_those_of_a_request_alone(
    family: str, make_engine: Callable[..., Any], loaded_ids: Callable[..., LoadedModel], tools: Any
) -> None:
    """Ragged prompts and limits, rows that leave and enter on the way, some cut every nine tokens and continued:
    nothing of it changes an answer. Sliding windows (16) are shorter than most sequences."""
    requests = tools.make_requests(12, seed=7, max_prompt=100, max_tokens=80)
    driver = tools.Driver(make_engine(family), piece=lambda request: 9 if int(request.id[1:]) % 3 == 0 else None)
    answers = driver.run(requests)
    alone = tools.Alone(loaded_ids(family))
    for request in requests:
        alone.check(request, answers[request.id])
    assert len({answer.text for answer in answers.values()}) > 6, "answers vary, or the test shows nothing"
    assert driver.cuts
