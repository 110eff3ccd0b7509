"""One test for each defect of the paper's released code that a scheduler could repeat (zhengzangw/Sequence-Scheduling).

The others (questions, parsing, label collection, counting of re-tokenised text) are no scheduler's business.
"""

from __future__ import annotations

import numpy as np
import pytest

from lengthwise.estimates import LengthEstimates
from lengthwise.scheduling.named import paper
from lengthwise.types import View, WaitingRequest
from tests.scheduling.compare_schedules import LIMIT, World
from tests.scheduling.toy_engine import ToyEngine

WORLD = World.drawn(256, tau=0.6, seed=0)


@pytest.fixture(scope="module")
def played() -> ToyEngine:
    """A group of 256 through the paper's scheduling, with Vicuna's length statistics: about a sixth is re-run."""
    engine = WORLD.play(paper(), max_rows=256)
    assert 0.05 < len(engine.num_cuts) / 256 < 0.3
    return engine


def test_the_prompts_that_failed_are_run_again(played: ToyEngine):
    """Defect 1: positions in schedule order indexed the original list, so others were run again. Here exactly those
    that are longer than their batch's cap are, from nothing and with the full limit, and every one finishes."""
    starts = [start for batch in played.batches for start in batch]
    first = [start for start in starts if not start.restart]
    again = [start for start in starts if start.restart]
    assert sorted(start.id for start in first) == sorted(WORLD.lengths)
    assert {start.id for start in again} == {s.id for s in first if s.cap < min(played.lengths[s.id], LIMIT)}
    assert {start.cap for start in again} == {LIMIT}
    assert played.finished == {name: min(length, LIMIT) for name, length in played.lengths.items()}


def test_each_request_stands_where_its_own_estimate_puts_it(played: ToyEngine):
    """Defect 2: the permutation was applied where its inverse was needed. Here the first run's order is that of the
    requests' own predicted lengths, and each batch's cap covers every one of its own rows and one of them exactly."""
    quantile = WORLD.estimates.capped(LIMIT).quantile(paper().config.cap_quantile)
    binned = np.minimum(np.ceil(quantile / 50) * 50, LIMIT)
    predicted = dict(zip(WORLD.lengths, binned, strict=True))
    first = [batch for batch in played.batches if not batch[0].restart]
    in_order = [predicted[start.id] for batch in first for start in batch]
    assert in_order == sorted(predicted.values())
    for batch in first:
        assert {start.cap for start in batch} == {max(predicted[start.id] for start in batch)}


def test_what_failed_attempts_burn_is_counted(played: ToyEngine):
    """Defect 3: tokens of failed first attempts were not counted, and what was run again was shorter than what had
    failed. Here the rows' steps are the answers' tokens and the thrown-away ones, and what runs again is long."""
    assert played.recomputed_tokens > 0.05 * sum(played.finished.values())
    assert played.num_row_steps == sum(played.finished.values()) + played.recomputed_tokens
    again = [played.finished[name] for name in played.num_cuts]
    assert np.mean(again) > 1.3 * np.mean(list(played.finished.values()))


@pytest.mark.parametrize("predicted", [10_000.0, 503.0, 0.2, float("nan"), float("inf"), -5.0], ids="{}".format)
def test_caps_stay_between_one_and_the_limit(predicted: float):
    """Defect 4: the cap was not clamped to the maximum (503 in bins of 50 is 550), and what was no number crashed."""
    scheduler = paper()
    limits = {"long": LIMIT - 7, "short": 80}
    requests = [WaitingRequest(name, 10, limit) for name, limit in limits.items()]
    scheduler.add(requests, LengthEstimates.certain([predicted] * 2))
    assert {start.id: start.cap for start in scheduler.decide(View(0.0, {}, {}, 64))} == limits


def test_the_table_is_checked_against_memory():
    """Defect 6: the table was made for one card and never checked. Here 200 short rows meet a memory of 1,000 tokens
    (ToyEngine raises if a batch does not fit) and rows for 30."""
    lengths = {f"r{i}": 20 for i in range(200)}
    world = World(lengths, LengthEstimates.certain(list(lengths.values())))
    engine = world.play(paper(), max_rows=30, kv_tokens=1000)
    assert {len(batch) for batch in engine.batches} <= {11, 2}  # 11 × (40 + 50) = 990; bins of 50 make 50 of 20
