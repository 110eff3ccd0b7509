"""Continuous batching by predicted length."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from lengthwise.errors import UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.scheduling.refill import MAX_LOOKED_AT, RefillConfig, RefillScheduler
from lengthwise.types import RunningRequest, Start, View, WaitingRequest
from tests.scheduling.toy_engine import ToyEngine
from tests.scheduling.worlds import World, curve, patient, refill_configs, worlds

LIMIT = 100


def scheduler(lengths: dict[str, int], **config: object) -> RefillScheduler:
    """One that knows the lengths of what waits; prompts have 10 tokens."""
    made = RefillScheduler(RefillConfig(**config))  # type: ignore[arg-type]
    add(made, lengths)
    return made


def add(to: RefillScheduler, lengths: dict[str, int]) -> None:
    requests = [WaitingRequest(name, 10, LIMIT) for name in lengths]
    to.add(requests, LengthEstimates.certain(list(lengths.values())).capped(LIMIT))


def started(by: RefillScheduler, free_rows: int, free_kv_tokens: float = np.inf, num_running: int = 0) -> list[str]:
    running = {f"running{i}": RunningRequest(f"running{i}", 1, 2, 0, 0.0) for i in range(num_running)}
    decisions = by.decide(View(0.0, {}, running, free_rows, free_kv_tokens))
    return [start.id for start in decisions if isinstance(start, Start)]


def caps(by: RefillScheduler, free_rows: int, free_kv_tokens: float) -> list[tuple[str, int]]:
    decisions = by.decide(View(0.0, {}, {}, free_rows, free_kv_tokens))
    return [(start.id, start.cap) for start in decisions if isinstance(start, Start)]


def again(by: RefillScheduler, name: str, length: int, num_tokens: int = 10) -> None:
    """A row comes back with tokens."""
    request = WaitingRequest(name, 10, LIMIT, num_tokens, num_cuts=1)
    by.add([request], LengthEstimates.certain([length]).given(num_tokens).capped(LIMIT))


class TestOrder:
    def test_the_longest_goes_first(self):
        """Ties in order of arrival."""
        assert started(scheduler({"a": 5, "b": 50, "c": 20, "d": 50}), 9) == ["b", "d", "c", "a"]

    def test_an_engine_with_a_queue_is_told_the_order(self):
        """Priorities fall from start to start, over all decisions."""
        made = scheduler({"a": 5, "b": 50, "c": 20})
        decisions = [*made.decide(View(0.0, {}, {}, 2)), *made.decide(View(0.0, {}, {}, 2))]
        priorities = {start.id: start.priority for start in decisions if isinstance(start, Start)}
        assert priorities == {"b": 0, "c": -1, "a": -2}

    def test_a_free_row_is_filled_while_others_run(self):
        """As many as are free, and no more."""
        made = scheduler({"a": 5, "b": 50, "c": 20})
        assert started(made, 1, num_running=3) == ["b"]
        assert started(made, 0, num_running=4) == []
        assert started(made, 5, num_running=1) == ["c", "a"]

    def test_only_the_last_of_many_are_ordered(self):
        """16 for each row; those before start as they came."""
        lengths = {f"r{i}": 1 + i % 7 for i in range(100)}
        made = scheduler(lengths)
        order = [name for _ in range(50) for name in started(made, 2)]
        num_before = 100 - 16 * 2
        assert order[:num_before] == list(lengths)[:num_before]
        assert [lengths[name] for name in order[num_before:]] == sorted(list(lengths.values())[num_before:])[::-1]

    def test_what_comes_later_waits_for_the_last_that_were_ordered(self):
        """Else something short might wait for ever."""
        made = scheduler({"a": 50, "b": 10})
        assert started(made, 1) == ["a"]
        add(made, {"c": 30, "d": 40})
        assert started(made, 9) == ["b", "d", "c"]

    def test_what_was_put_back_goes_on_first(self):
        """In the order in which it came back."""
        made = scheduler({f"r{i}": 10 for i in range(6)})
        assert started(made, 3) == ["r0", "r1", "r2"]
        for name in ("r1", "r2", "r0"):
            again(made, name, 60)
        assert started(made, 2) == ["r1", "r2"]
        assert started(made, 9) == ["r0", "r3", "r4", "r5"]

    def test_a_row_that_is_put_back_alone_runs(self):
        """With no group at hand it still has a place."""
        made = scheduler({"a": 10})
        assert started(made, 1) == ["a"]
        made.add([WaitingRequest("a", 10, LIMIT, 10, 0.0, 1)], LengthEstimates.unknown(1).given(10).capped(LIMIT))
        assert started(made, 1) == ["a"]


class TestWholeLimits:
    def test_a_row_may_reach_its_limit(self):
        """Nothing is cut, whatever was predicted."""
        assert caps(scheduler({"a": 5, "b": 50}), 2, 220) == [("b", LIMIT), ("a", LIMIT)]

    def test_its_limit_is_reserved(self):
        """One token less than two whole answers: one starts."""
        assert caps(scheduler({"a": 5, "b": 50}), 2, 219) == [("b", LIMIT)]

    def test_the_next_is_not_passed_over(self):
        """It waits for its tokens, and a smaller one behind it waits too: else it might wait for ever."""
        made = RefillScheduler()
        requests = [WaitingRequest("a", 10, 100), WaitingRequest("b", 10, 20)]
        made.add(requests, LengthEstimates.unknown(2).capped([100, 20]))
        assert started(made, 2, free_kv_tokens=109, num_running=1) == []
        assert started(made, 2, free_kv_tokens=140, num_running=1) == ["a", "b"]

    def test_into_an_empty_engine_one_always_starts(self):
        """Alone, however little memory there is."""
        assert started(scheduler({"a": 5, "b": 50}), 2, free_kv_tokens=1) == ["b"]
        assert started(scheduler({"a": 5, "b": 50}), 0) == ["a"]

    @patient
    @given(worlds(), refill_configs().filter(lambda config: config.memory == "limits"))
    def test_rows_are_used_as_far_as_rows_and_memory_go(self, world: World, config: RefillConfig):
        """After a decision nothing that waits would have fitted, next in order."""
        engine = world.engine(RefillScheduler(config))
        engine.add(world.requests)
        while engine.waiting or engine.running:
            engine.decide()
            free_kv_tokens = world.kv_tokens - sum(row.reserved_kv_tokens for row in engine.running.values())
            if len(engine.running) < world.max_rows and engine.waiting:
                longest = max(request.prompt_tokens + request.max_tokens for request in engine.waiting.values())
                assert longest > free_kv_tokens
            engine.decode()


def view(kv_tokens: float, running: dict[str, tuple[int, int]], block: int = 1, free_rows: int = 50) -> View:
    """`running`: prompt and answer tokens by id; limits are LIMIT."""
    rows = {name: RunningRequest(name, prompt, LIMIT, num, 0.0) for name, (prompt, num) in running.items()}
    free = kv_tokens - sum(row.reserved_kv_tokens for row in rows.values())
    return View(0.0, {}, rows, free_rows, free, kv_tokens, block)


def ids(decisions: list) -> list[str]:
    return [start.id for start in decisions]


class TestExpectedMemory:
    def test_rows_enter_by_what_all_hold_at_once(self):
        """Prompts of 10, answers of 50, 50, 20: after 20 tokens they hold 90, after 50 the two that are left 120. That
        is the peak, so the short one costs nothing."""
        lengths = {"a": 50, "b": 50, "c": 20}
        assert ids(scheduler(lengths, memory="expected").decide(view(120, {}))) == ["a", "b", "c"]
        assert ids(scheduler(lengths, memory="expected").decide(view(119, {}))) == ["a"]

    def test_what_runs_is_seen_with_what_it_has(self):
        """`a` has 40 of its 50 tokens: 10 more of each, and `b` holds 60 at its end, alone."""
        made = scheduler({"a": 50, "b": 50}, memory="expected")
        assert ids(made.decide(view(100, {}, free_rows=1))) == ["a"]
        assert ids(made.decide(view(79, {"a": (10, 40)}))) == []
        assert ids(made.decide(view(80, {"a": (10, 40)}))) == ["b"]

    def test_a_row_that_outlives_its_estimate_is_expected_to_reach_its_limit(self):
        """`a` was to end at 50, and has 60: 40 more beside `b`."""
        made = scheduler({"a": 50, "b": 60}, memory="expected")
        assert ids(made.decide(view(300, {}, free_rows=1))) == ["b"]
        made = scheduler({"a": 50}, memory="expected")
        made.decide(view(300, {}))
        add(made, {"b": 50})
        assert ids(made.decide(view(159, {"a": (10, 60)}))) == []
        assert ids(made.decide(view(160, {"a": (10, 60)}))) == ["b"]

    def test_what_somebody_else_started_runs_to_its_cap(self):
        """Nothing is known of it: when `a` ends, it is still there."""
        assert ids(scheduler({"a": 50}, memory="expected").decide(view(119, {"other": (10, 0)}))) == []
        assert ids(scheduler({"a": 50}, memory="expected").decide(view(120, {"other": (10, 0)}))) == ["a"]

    def test_half_a_block_is_lost_in_every_row(self):
        """Two rows of 60 tokens in blocks of 16."""
        lengths = {"a": 50, "b": 50}
        assert ids(scheduler(lengths, memory="expected").decide(view(135, {}, block=16))) == ["a"]
        assert ids(scheduler(lengths, memory="expected").decide(view(136, {}, block=16))) == ["a", "b"]

    def test_what_is_uncertain_has_a_margin(self):
        """30 rows of a mean of 30 tokens and a wide spread: fewer enter with a greater margin, and on average what
        enters without one holds what there is."""
        num = 30
        names = [WaitingRequest(f"r{i}", 0, LIMIT) for i in range(num)]
        estimates = LengthEstimates.from_survival([curve(30.0)] * num).capped(LIMIT)

        def entering(margin: float) -> int:
            made = RefillScheduler(RefillConfig("expected", margin))
            made.add(names, estimates)
            return len(made.decide(view(400, {})))

        assert entering(0.0) > entering(1.0) > entering(2.0) > 400 // LIMIT

    def test_nothing_known_is_whole_limits(self):
        """Rows go to their limits."""
        made = RefillScheduler(RefillConfig("expected"))
        made.add([WaitingRequest(f"r{i}", 10, LIMIT) for i in range(5)], LengthEstimates.unknown(5).capped(LIMIT))
        assert ids(made.decide(view(329, {}))) == ["r0", "r1"]

    @patient
    @given(worlds())
    def test_draws_of_what_ended_are_forgotten(self, world: World):
        """Memory does not grow with the number of requests."""
        made = RefillScheduler(RefillConfig("expected"))
        engine = world.engine(made)
        for number in range(20):
            requests = [replace(request, id=f"{number}-{request.id}") for request in world.requests]
            engine.lengths |= {request.id: 5 for request in requests}
            world.guesses.update({request.id: 5.0 for request in requests})
            engine.add(requests)
            engine.run()
        assert len(made._ends) <= 2 * world.max_rows + MAX_LOOKED_AT + len(world.requests)


class TestRemove:
    def test_what_was_removed_does_not_start(self):
        """Nor does an id that never waited matter."""
        made = scheduler({"a": 5, "b": 50, "c": 20})
        made.remove(["b", "never seen"])
        assert started(made, 9) == ["c", "a"]

    def test_what_was_removed_from_the_group_at_hand_does_not_start(self):
        """The group has begun."""
        made = scheduler({"a": 5, "b": 50, "c": 20})
        assert started(made, 1) == ["b"]
        made.remove(["c"])
        assert started(made, 9) == ["a"]

    def test_what_was_removed_and_came_again_starts_once(self):
        """In its new place."""
        made = scheduler({"a": 5, "b": 50, "c": 20})
        made.remove(["b"])
        add(made, {"b": 10})
        assert started(made, 9) == ["c", "b", "a"]


class TestNothingStarves:
    def test_a_short_request_runs_though_long_ones_never_end(self):
        """In an endless stream of long requests a short one starts within its group."""
        engine = ToyEngine(
            RefillScheduler(),
            {"short": 1} | {f"r{i}": 50 for i in range(1000)},
            lambda requests: LengthEstimates.certain([1 if r.id == "short" else 50 for r in requests]),
            max_rows=3,
            is_static=False,
        )
        engine.add([WaitingRequest("short", 1, LIMIT)])
        num_added = 0
        while "short" not in engine.finished:
            engine.add([WaitingRequest(f"r{num_added + i}", 1, LIMIT) for i in range(3)])
            num_added += 3
            engine.step()
            assert num_added < 60


@pytest.mark.parametrize("config", [{"memory": "none"}, {"margin": -1.0}, {"margin": float("nan")}])
def test_a_setting_out_of_range_is_refused(config: dict[str, object]):
    """With its name and value."""
    (name, value), *_ = config.items()
    with pytest.raises(UsageError, match=f"{name} is {value!r}"):
        RefillConfig(**config)  # type: ignore[arg-type]
