"""The nouns check themselves when they are made, and stay as they are."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import pytest

from lengthwise import types
from lengthwise.errors import LengthwiseError, RequestError
from lengthwise.types import (
    ErrorInfo,
    Progress,
    Request,
    RunningRequest,
    SamplingParams,
    Start,
    WaitingRequest,
    unsupported_field,
)

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": 0},
        {"temperature": 5.0},
        {"top_p": 1e-9},
        {"top_p": 1},
        {"top_k": 1},
        {"repetition_penalty": 0.01},
        {"presence_penalty": -2, "frequency_penalty": 2},
        {"stop": ("a", "\n\n")},
        {"seed": 0},
        {"seed": -1},
    ],
)
def test_sampling_in_range(values: dict[str, Any]) -> None:
    """Every value at the edge of its range is taken as it is."""
    params = SamplingParams(**values)
    assert {name: getattr(params, name) for name in values} == values


@pytest.mark.parametrize(
    "values",
    [
        *({"temperature": value} for value in (-0.1, NAN, INF)),
        *({"top_p": value} for value in (0, -1, 1.01, NAN)),
        *({"top_k": value} for value in (0, -1)),
        *({"repetition_penalty": value} for value in (0, -1, NAN, INF)),
        *({name: value} for name in ("presence_penalty", "frequency_penalty") for value in (-2.1, 2.1, NAN)),
        *({"stop": value} for value in (("a", ""), "END", ["a"], (1,))),
    ],
)
def test_sampling_out_of_range(values: dict[str, Any]) -> None:
    """A value out of range, or NaN, is a RequestError that names parameter and value; so is a bare stop text, whose
    letters would otherwise be taken for stop texts."""
    [(name, value)] = values.items()
    with pytest.raises(RequestError) as caught:
        SamplingParams(**values)
    assert caught.value.type == "invalid_request"
    assert name in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("max_tokens", [0, -1, -(10**9)])
def test_an_answer_has_at_least_one_token(max_tokens: int) -> None:
    """A limit below one token is refused."""
    with pytest.raises(RequestError, match=f"max_tokens is {max_tokens}"):
        Request("a", "b", max_tokens=max_tokens)


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": 5},
        {"prompt": ["a"]},
        {"prompt": ("a",)},
        {"sampling": {}},
        {"metadata": [1]},
        {"is_raw": 1},
        {"api_fields": "n"},
    ],
)
def test_a_request_with_a_field_of_the_wrong_type(values: dict[str, Any]) -> None:
    """It is found when the request is made, not where the field is read."""
    [(name, value)] = values.items()
    with pytest.raises(RequestError, match=re.escape(f"{name} is {value!r}; it must be ")):
        Request(**{"id": "a", "prompt": "b", **values})


def test_messages_are_short_however_long_the_value_is() -> None:
    """A message becomes a line of the answers."""
    long = "x" * 10**6
    with pytest.raises(RequestError) as caught:
        Request("a", "b", api_fields=long)  # type: ignore[arg-type]
    with pytest.raises(RequestError) as also_caught:
        SamplingParams(stop=[long])  # type: ignore[arg-type]
    refused = unsupported_field(Request("a", "b", api_fields={"tools": [{"x": long}], 5: 1, "z": long}))
    assert refused.message.startswith("5 is 1")
    refused = unsupported_field(Request("a", "b", api_fields={"tools": [{"x": long}]}))
    assert refused.message.startswith("tools is [{'x': 'xxx")
    assert max(len(str(told)) for told in (caught.value, also_caught.value, refused.message)) < 200


def test_greedy_is_temperature_zero() -> None:
    """Greedy is the default, and nothing else."""
    assert SamplingParams().is_greedy
    assert not SamplingParams(temperature=1e-9).is_greedy


def test_text_of_a_chat() -> None:
    """A chat's text holds each message's content; a message without one does no harm."""
    chat = ({"role": "system", "content": "Be kind."}, {"role": "user"}, {"role": "user", "content": "Hi"})
    assert Request("a", chat).text == "Be kind.\n\nHi"
    assert Request("a", "plain").text == "plain"


def test_a_seed_changes_nothing_else() -> None:
    """`with_seed` gives a new request; the old one has none."""
    request = Request("a", "b", SamplingParams(temperature=0.7), max_tokens=5, metadata={"k": 1})
    seeded = request.with_seed(3)
    assert (seeded.sampling.seed, request.sampling.seed) == (3, None)
    assert dataclasses.replace(seeded, sampling=request.sampling) == request


def test_nouns_are_frozen() -> None:
    """All are immutable but the running request, whose count grows, and those of which millions are made;
    none takes fields that it does not have."""
    nouns = [noun for noun in vars(types).values() if dataclasses.is_dataclass(noun)]
    thawed = {noun for noun in nouns if not noun.__dataclass_params__.frozen}  # type: ignore[attr-defined]
    assert thawed == {RunningRequest, WaitingRequest, Start, Progress}
    assert all("__slots__" in vars(noun) for noun in nouns)


def test_running_requests_reserve_prompt_and_cap() -> None:
    """What a running request may come to hold is its prompt and its cap, however few tokens it has by now."""
    assert RunningRequest("a", prompt_tokens=10, cap=100, num_tokens=3, started_s=0).reserved_kv_tokens == 110


def test_errors_keep_their_word() -> None:
    """A RequestError becomes an error row's type and message, with its line."""
    error = RequestError("too_long", "The prompt has 9 tokens.")
    assert ErrorInfo.of(error, 3) == ErrorInfo("too_long", "The prompt has 9 tokens.", 3)
    assert isinstance(error, LengthwiseError)
