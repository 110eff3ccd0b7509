"""What the loop keeps while it runs, and what it tells its scheduler."""

from __future__ import annotations

import math

import pytest

from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.feeds import IterableFeed
from lengthwise.loop import Control, Counts, Loop
from lengthwise.loop.loop import MAX_LATENESS_S, POLL_TIMEOUT_S
from lengthwise.scheduling.refill import RefillScheduler
from lengthwise.testing import NoisyOracle, recorded_lengths
from lengthwise.types import Capabilities, Request

LENGTHS = recorded_lengths(2_000)
ROWS, WINDOW = 8, 20


def loop_of(engine: ReplayEngine, scheduler: RefillScheduler, **options) -> Loop:
    requests = IterableFeed(Request(name, f"prompt {name}") for name in LENGTHS)
    return Loop(engine, NoisyOracle(LENGTHS, 0.7), scheduler, requests, Counts(), Control(), **options)


def test_with_a_window_nothing_grows_with_the_number_of_requests():
    """Only what waits and runs is kept, and at the end nothing: cuts, cancelling, unknown ids leave nothing behind."""
    engine = ReplayEngine(LENGTHS, ReplayConfig(Capabilities(max_running=ROWS, kv_tokens=1_500)))
    scheduler = RefillScheduler()
    loop = loop_of(engine, scheduler, window=WINDOW)
    flight, ids = loop.flight, loop.feeding.ids
    for num_ended, _ in enumerate(loop.completions()):
        assert ids == flight.tracked.keys() == flight.waiting.keys() | flight.running.keys()
        assert len(ids) <= 2 * WINDOW + ROWS
        loop.control.cancelled_ids += [f"r{num_ended + 5}", "never seen"]
    kept = (flight.tracked, flight.waiting, flight.running, ids, loop.cancelled, engine._rows, engine._ends)
    assert not any((*kept, scheduler._group, scheduler._removed, len(scheduler._fresh), flight.reserved_kv_tokens))


@pytest.mark.parametrize("kv_tokens", [1_500, math.inf])
def test_the_scheduler_sees_what_is_free(kv_tokens):
    """Rows and tokens, after every start, end and cut: what the engine has less what runs reserves."""
    num_views = 0

    class Watching(RefillScheduler):
        def decide(self, view):
            nonlocal num_views
            num_views += 1
            assert view.free_rows == ROWS - len(view.running)
            assert view.free_kv_tokens == kv_tokens - sum(row.reserved_kv_tokens for row in view.running.values())
            return super().decide(view)

    engine = ReplayEngine(LENGTHS, ReplayConfig(Capabilities(max_running=ROWS, kv_tokens=kv_tokens)))
    for answer in loop_of(engine, Watching(), window=WINDOW).completions():
        assert answer.completion_tokens == min(LENGTHS[answer.id], 512)
    assert num_views > len(LENGTHS) / ROWS


def test_the_scheduler_sees_the_end_of_the_job():
    """It is shown who runs though nothing waits any more: a record of slots over time comes from there."""
    seen: list[int] = []

    class Watching(RefillScheduler):
        def decide(self, view):
            if not view.waiting:
                seen.append(len(view.running))
            return super().decide(view)

    engine = ReplayEngine(LENGTHS, ReplayConfig(Capabilities(max_running=ROWS)))
    assert sum(1 for _ in loop_of(engine, Watching(), window=WINDOW).completions()) == len(LENGTHS)
    assert seen[-1] == 1
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize("window", [None, WINDOW])
def test_the_loop_waits_for_its_feed_only_when_there_is_nothing_else_to_do(window):
    """With a window: while nothing waits or runs. Without: until all is read, for nothing starts before."""
    names = iter(list(LENGTHS)[:100])

    class Hesitant:
        """Nothing is at hand at first, then one request at a time."""

        def take(self, num, may_wait):
            nonlocal is_ready
            assert may_wait == (window is None or not loop.flight.tracked)
            is_ready = not is_ready
            if is_ready:
                return []
            name = next(names, None)
            return None if name is None else [Request(name, "prompt")]

    is_ready = False
    engine = ReplayEngine(LENGTHS, ReplayConfig(Capabilities(max_running=ROWS)))
    loop = Loop(engine, NoisyOracle(LENGTHS, 0.7), RefillScheduler(), Hesitant(), Counts(), Control(), window)
    assert sum(1 for _ in loop.completions()) == 100


def test_an_engine_with_room_returns_soon_for_those_who_may_come():
    """While a row is free and more may come. Where rows are full, and where nobody comes any more, an end is the next
    thing that can happen."""
    names = list(LENGTHS)[:4]
    script = [[names[0]], [], names[1:], []]  # then the end; two rows
    seen: list[tuple[int, bool, float]] = []

    class Scripted:
        def take(self, num, may_wait):
            return [Request(name, "prompt") for name in script.pop(0)] if script else None

    class Watched(ReplayEngine):
        def poll(self, timeout_s):
            seen.append((len(loop.flight.running), loop.feeding.is_exhausted, timeout_s))
            return super().poll(timeout_s)

    engine = Watched(LENGTHS, ReplayConfig(Capabilities(max_running=2)))
    predictor = NoisyOracle(LENGTHS, 0.7)
    loop = Loop(engine, predictor, RefillScheduler(), Scripted(), Counts(), Control(), window=4)
    assert sum(1 for _ in loop.completions()) == 4
    assert {timeout_s for num, is_ended, timeout_s in seen if num == 1 and not is_ended} == {MAX_LATENESS_S}
    assert {timeout_s for num, is_ended, timeout_s in seen if num == 2 or is_ended} == {POLL_TIMEOUT_S}
    assert MAX_LATENESS_S < POLL_TIMEOUT_S / 10


@pytest.mark.parametrize("is_draining", [True, False])
def test_an_engine_is_told_what_will_not_run(is_draining):
    """What it kept of a request since `prepare` is of no use when the request is dropped or cancelled."""
    prepared: set[str] = set()

    class Keeping(ReplayEngine):
        def prepare(self, requests):
            prepared.update(request.id for request in requests)
            return super().prepare(requests)

        def cancel(self, request_id):
            prepared.discard(request_id)
            super().cancel(request_id)

    loop = loop_of(Keeping(LENGTHS, ReplayConfig(Capabilities(max_running=ROWS))), RefillScheduler(), window=WINDOW)
    completions = loop.completions()
    next(completions)
    waiting = set(loop.flight.waiting)
    loop.control.is_draining = is_draining
    loop.control.cancelled_ids += [] if is_draining else waiting
    next(completions)
    assert waiting
    assert not waiting & prepared


def test_a_row_that_writes_is_seen_to_write():
    """`num_tokens` of what runs grows with progress, so that a scheduler can tell what is nearly done."""
    seen: list[int] = []

    class Watching(RefillScheduler):
        def decide(self, view):
            seen.extend(row.num_tokens for row in view.running.values())
            return super().decide(view)

    engine = ReplayEngine(LENGTHS, ReplayConfig(Capabilities(max_running=ROWS)))
    for _ in loop_of(engine, Watching(), window=WINDOW).completions():
        pass
    assert max(seen) > 100
