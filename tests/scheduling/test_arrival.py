"""Arrival order, the baseline."""

from __future__ import annotations

import math

import pytest

from lengthwise.errors import UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.scheduling.arrival import ArrivalScheduler
from lengthwise.types import Start, View, WaitingRequest


def decide(scheduler: ArrivalScheduler, free_rows: int = 100, free_kv_tokens: float = math.inf) -> list[Start]:
    return scheduler.decide(View(0.0, {}, {}, free_rows, free_kv_tokens))


def waiting(*names: str, **fields: int) -> tuple[list[WaitingRequest], LengthEstimates]:
    requests = [WaitingRequest(name, **{"prompt_tokens": 10, "max_tokens": 90, **fields}) for name in names]
    return requests, LengthEstimates.certain([5.0] * len(names))


def ids(starts: list[Start]) -> str:
    return "".join(start.id for start in starts)


def test_batches_stand_in_the_order_of_adding():
    """Also over several calls of `add`; estimates change nothing, and the cap is the limit."""
    scheduler = ArrivalScheduler(3)
    scheduler.add(*waiting("c", "a"))
    scheduler.add(*waiting("d", "b"))
    first = decide(scheduler)
    assert first == [Start("c", 90), Start("a", 90), Start("d", 90)]
    assert ids(decide(scheduler)) == "b"
    assert decide(scheduler) == []


def test_a_batch_fits_rows_and_memory():
    """Each row reserves its prompt and its whole limit."""
    scheduler = ArrivalScheduler(10)
    scheduler.add(*waiting(*"abcdefg"))
    assert ids(decide(scheduler, free_rows=2)) == "ab"
    assert ids(decide(scheduler, free_kv_tokens=300)) == "cde"
    assert ids(decide(scheduler, free_kv_tokens=199)) == "f"
    assert ids(decide(scheduler, free_rows=0, free_kv_tokens=0)) == "g"


def test_what_comes_back_goes_first():
    """A request that the engine cut is older than all that never ran."""
    scheduler = ArrivalScheduler(2)
    scheduler.add(*waiting(*"abcd"))
    decide(scheduler)
    scheduler.add(*waiting("b", num_tokens=7, num_cuts=1))
    assert decide(scheduler) == [Start("b", 90), Start("c", 90)]


def test_refuses_an_empty_batch():
    """A batch size of 0 is a mistake of the caller."""
    with pytest.raises(UsageError, match="batch_size is 0"):
        ArrivalScheduler(0)
