"""The paper's figures by its definitions: each example is worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lengthwise.benchmarks.paper.counting import StartedRow, WatchedScheduler, counted
from lengthwise.benchmarks.paper.replay import Recorded, replayed
from lengthwise.benchmarks.paper.ways import REFILL, VANILLA, Way
from lengthwise.costs import StepCost
from lengthwise.errors import EngineError, UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.scheduling.online import OnlineConfig, OnlineScheduler
from lengthwise.scheduling.urgency import no_order
from lengthwise.types import RunningRequest, View, WaitingRequest

LENGTHS = {"a": 10, "b": 100, "c": 30, "d": 40}
A_SECOND_A_STEP = StepCost(step_fixed_s=1.0, step_row_s=0.0)


def recorded(*answers: int, prompts: int = 1, limit: int = 512) -> Recorded:
    return Recorded(np.full(len(answers), prompts), np.array(answers), limit)


def whole(*ids: str) -> list[StartedRow]:
    return [StartedRow(name, 0, 512) for name in ids]


def test_padding_counts_until_the_batch_ends() -> None:
    """Two batches of two run 100 and 40 steps: 280 positions for 180 tokens."""
    counts = counted([whole("a", "b"), whole("c", "d")], LENGTHS)
    assert counts.average_length == (100 + 100 + 40 + 40) / 4
    assert counts.average_length_of_last_attempts == counts.average_length
    assert counts.effective_token_ratio == pytest.approx(180 / 280)
    assert counts.rerun_ratio == 0


def test_what_a_cut_attempt_took_is_counted() -> None:
    """`b` is cut after 50 steps and written again, alone: its 50 lost positions stand in the average length, and only
    the paper's own counting leaves them out."""
    counts = counted([[StartedRow("a", 0, 50), StartedRow("b", 0, 50)], whole("c", "d"), whole("b")], LENGTHS)
    assert counts.num_positions == 2 * 50 + 2 * 40 + 100
    assert counts.average_length == 280 / 4
    assert counts.average_length_of_last_attempts == (280 - 50) / 4
    assert counts.effective_token_ratio == pytest.approx(180 / 280)
    assert counts.rerun_ratio == 1 / 4


def test_an_answer_of_its_cap_is_not_cut() -> None:
    """It has ended in the very step."""
    counts = counted([[StartedRow("a", 0, 10)]], {"a": 10})
    assert (counts.num_rerun, counts.num_positions) == (0, 10)


def test_an_answer_that_goes_on_takes_what_is_left() -> None:
    """Tokens that are kept are not written again."""
    counts = counted([[StartedRow("a", 0, 4)], [StartedRow("a", 4, 512)]], {"a": 10})
    assert counts.num_positions == 4 + 6


@pytest.mark.parametrize("batches", [[], [[StartedRow("a", 0, 5)]], [whole("a"), whole("a")]])
def test_each_answer_is_delivered_once(batches: list[list[StartedRow]]) -> None:
    """One that is missing, never finished or doubled is no schedule."""
    with pytest.raises(EngineError, match="each needs one"):
        counted(batches, {"a": 10})


def test_vanilla_batches_last_as_long_as_their_longest() -> None:
    """100 + 40 steps of a second each."""
    seconds, counts = replayed(
        Way("arrival", batch_size=2), recorded(10, 100, 30, 40), LengthEstimates.unknown(4), A_SECOND_A_STEP
    )
    assert seconds == 140
    assert counts.average_length == 70


def test_failures_are_collected_at_the_end_of_their_group() -> None:
    """Of groups of two the first is cut at its bin of 50; `b` runs again with the full limit before the second."""
    way = Way(vbs=False, batch_size=2, group_size=2)
    seconds, counts = replayed(
        way, recorded(10, 100, 30, 40), LengthEstimates.certain([10, 40, 30, 40]), A_SECOND_A_STEP
    )
    assert seconds == 50 + 100 + 40
    assert counts.average_length == (2 * 50 + 100 + 2 * 40) / 4
    assert counts.rerun_ratio == 1 / 4


def test_without_failure_collection_nothing_is_cut() -> None:
    """The batch goes on to its longest."""
    way = Way(vbs=False, batch_size=2, group_size=2, fcr=False)
    seconds, counts = replayed(
        way, recorded(10, 100, 30, 40), LengthEstimates.certain([10, 40, 30, 40]), A_SECOND_A_STEP
    )
    assert (seconds, counts.num_rerun) == (140, 0)


def test_binning_decides_where_a_batch_is_cut() -> None:
    """A prediction of 40 lets a row have 50 tokens with binning, and 40 without."""
    one, said = recorded(45), LengthEstimates.certain([40])
    assert replayed(Way(), one, said, A_SECOND_A_STEP)[1].rerun_ratio == 0
    assert replayed(Way(binning=False), one, said, A_SECOND_A_STEP)[1].rerun_ratio == 1


def test_groups_are_sorted_apart() -> None:
    """In one group of four, like stands beside like: 20 + 100 steps; in groups of two nothing can be sorted."""
    answers, said = recorded(20, 100, 20, 100), LengthEstimates.certain([20, 100, 20, 100])
    seconds = [
        replayed(Way(vbs=False, batch_size=2, group_size=size), answers, said, A_SECOND_A_STEP)[0] for size in (4, 2)
    ]
    assert seconds == [120, 200]


def test_short_answers_share_larger_batches() -> None:
    """By the paper's table 64 rows of up to 50 tokens are one batch, and four of 16 without."""
    answers, said = recorded(*[20] * 64), LengthEstimates.certain([20] * 64)
    assert replayed(Way(), answers, said, A_SECOND_A_STEP)[0] == 20
    assert replayed(Way(vbs=False), answers, said, A_SECOND_A_STEP)[0] == 4 * 20


def test_reading_and_the_cache_cost_what_they_cost() -> None:
    """Prompts of 3 and 5 tokens are padded to 10: read 2 + 5 s; three steps of 1.2 s and a hundredth a cached token,
    of which each step has two more."""
    cost = StepCost(1.0, 0.1, 0.01, 2.0, 0.5)
    one = Recorded(np.array([3, 5]), np.array([2, 3]), 512)
    seconds, _ = replayed(VANILLA, one, LengthEstimates.unknown(2), cost)
    assert seconds == pytest.approx(7 + 1.30 + 1.32 + 1.34)


def test_refilled_rows_have_no_padding() -> None:
    """Two rows, the first come first: `b` runs 100 steps, the others 80 beside it."""
    way = Way("refill", batch_size=2)
    seconds, counts = replayed(way, recorded(10, 100, 30, 40), LengthEstimates.unknown(4), A_SECOND_A_STEP)
    assert seconds == 100
    assert counts.effective_token_ratio == 1
    assert counts.average_length == 45


def test_a_scheduler_is_watched_without_being_changed() -> None:
    """What it starts is noted with what was written before; more rows than wanted are not shown to it."""
    watched = WatchedScheduler(OnlineScheduler(OnlineConfig(no_order)), max_rows=2, in_batches=False)
    requests = [WaitingRequest(name, 1, 512, written) for name, written in (("a", 0), ("b", 7), ("c", 0))]
    watched.add(requests, LengthEstimates.unknown(3))
    waiting = {request.id: request for request in requests}
    assert len(watched.decide(View(0.0, waiting, {}, 8))) == 2
    assert watched.batches == [[StartedRow("a", 0, 512)], [StartedRow("b", 7, 512)]]
    running = {name: RunningRequest(name, 1, 512, 0, 0.0) for name in "ab"}
    assert watched.decide(View(0.0, {"c": requests[2]}, running, 6)) == []


def test_a_row_less_or_a_limit_passed_is_refused() -> None:
    """Sizes of 0, and answers beyond the limit that they were recorded under."""
    with pytest.raises(UsageError, match="batch_size 0"):
        Way(batch_size=0)
    with pytest.raises(EngineError, match="600"):
        recorded(600)
    assert REFILL.batch_size == VANILLA.batch_size == 16
