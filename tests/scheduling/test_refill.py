"""Continuous batching by predicted length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from lengthwise.errors import UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.scheduling.refill import RefillConfig, RefillScheduler
from lengthwise.types import RunningRequest, Start, View, WaitingRequest
from tests.scheduling.toy_engine import ToyEngine
from tests.scheduling.worlds import World, patient, refill_configs, worlds

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

    def test_groups_go_one_after_the_other(self):
        """A long one that comes much later does not overtake."""
        assert started(scheduler({"a": 5, "b": 7, "c": 90, "d": 50}, group_size=2), 9) == ["b", "a", "c", "d"]

    def test_groups_are_counted_over_all_that_came(self):
        """However the requests are handed over."""
        made = scheduler({"a": 5}, group_size=2)
        add(made, {"b": 7, "c": 90})
        add(made, {"d": 95})
        assert started(made, 9) == ["b", "a", "d", "c"]

    def test_what_comes_later_forms_the_next_group(self):
        """The group at hand, once begun, is ended first."""
        made = scheduler({"a": 50, "b": 10})
        assert started(made, 1) == ["a"]
        add(made, {"c": 30, "d": 40})
        assert started(made, 9) == ["b", "d", "c"]

    def test_a_cut_row_joins_the_group_at_hand(self):
        """It does not wait behind all that came since."""
        made = scheduler({f"r{i}": 10 for i in range(6)}, group_size=2)
        assert started(made, 3) == ["r0", "r1", "r2"]
        again = WaitingRequest("r0", 10, LIMIT, num_tokens=10, num_cuts=1)
        made.add([again], LengthEstimates.certain([60]).given(10).capped(LIMIT))
        assert started(made, 9) == ["r0", "r3", "r4", "r5"]

    def test_cut_rows_with_as_much_to_come_go_in_the_order_in_which_they_came_back(self):
        """Ties in order of arrival, here too."""
        made = scheduler({"a": 50, "b": 50, "c": 50})
        assert started(made, 3) == ["a", "b", "c"]
        for name in ("b", "c", "a"):
            again = WaitingRequest(name, 10, LIMIT, num_tokens=10, num_cuts=1)
            made.add([again], LengthEstimates.certain([50]).given(10).capped(LIMIT))
        assert started(made, 9) == ["b", "c", "a"]

    def test_a_cut_row_that_is_alone_runs(self):
        """With no group at hand it still has a place."""
        made = scheduler({"a": 10})
        assert started(made, 1) == ["a"]
        made.add([WaitingRequest("a", 10, LIMIT, 10, 0.0, 1)], LengthEstimates.unknown(1).given(10).capped(LIMIT))
        assert started(made, 1) == ["a"]


class TestMemory:
    def test_with_room_for_all_a_row_may_reach_its_limit(self):
        """No cap where none is needed, whatever was predicted."""
        assert caps(scheduler({"a": 5, "b": 50}), 2, 220) == [("b", LIMIT), ("a", LIMIT)]

    def test_memory_is_not_short_when_it_holds_all_that_wait(self):
        """However many rows are free."""
        assert caps(scheduler({"a": 5, "b": 50}), 100, 220) == [("b", LIMIT), ("a", LIMIT)]

    def test_where_memory_is_short_a_row_gets_what_it_probably_needs(self):
        """One token less than two whole answers: the estimate counts."""
        assert caps(scheduler({"a": 5, "b": 50}), 2, 219) == [("b", 50), ("a", LIMIT)]

    def test_without_failure_collection_nothing_is_cut(self):
        """Rows wait for room for their whole limit."""
        assert caps(scheduler({"a": 5, "b": 50}, fcr=False), 2, 219) == [("b", LIMIT)]

    def test_the_next_is_not_passed_over(self):
        """It waits for its tokens, and a smaller one behind it waits too: else it might wait for ever."""
        made = scheduler({"a": 5, "b": 50})
        assert started(made, 2, free_kv_tokens=59, num_running=1) == []
        assert started(made, 2, free_kv_tokens=75, num_running=1) == ["b", "a"]

    def test_into_an_empty_engine_one_always_starts(self):
        """Alone, however little memory there is."""
        assert started(scheduler({"a": 5, "b": 50}), 2, free_kv_tokens=1) == ["b"]
        assert started(scheduler({"a": 5, "b": 50}), 0) == ["b"]

    @patient
    @given(worlds(), refill_configs())
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
            RefillScheduler(RefillConfig(group_size=10)),
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


@pytest.mark.parametrize("config", [{"group_size": 0}, {"cap_quantile": 1.0}, {"max_cuts": 0}, {"on_cut": "drop"}])
def test_a_setting_out_of_range_is_refused(config: dict[str, object]):
    """With its name and value."""
    (name, value), *_ = config.items()
    with pytest.raises(UsageError, match=f"{name} is {value!r}"):
        RefillConfig(**config)  # type: ignore[arg-type]
