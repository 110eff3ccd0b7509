"""What holds for every scheduler, whatever the lengths, the estimates and the engine."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.scheduling.arrival import ArrivalScheduler
from lengthwise.scheduling.grouping import GroupedScheduler, GroupingConfig
from lengthwise.scheduling.named import grouped, optimal, paper, refill
from lengthwise.testing import check_scheduler
from lengthwise.types import RunningRequest, View, WaitingRequest
from tests.scheduling.worlds import World, patient, schedulers, sorting_schedulers, static_schedulers, worlds

CONTRACT = {
    "arrival": lambda: ArrivalScheduler(4),
    "refill": refill,
    "grouped": grouped,
    "paper": paper,
    "optimal": optimal,
    "optimal-padded": lambda: optimal(is_padded=True),
    "optimal-no-caps": lambda: optimal(fcr=False),
    "grouped-no-caps": lambda: grouped(fcr=False),
    "paper-no-caps": lambda: paper(fcr=False),
}


@pytest.mark.parametrize("make", CONTRACT.values(), ids=CONTRACT)
def test_keeps_the_contract(make):
    """The ready-made schedulers pass the checks that every scheduler must pass."""
    check_scheduler(make)


def test_keeps_the_contract_where_the_engine_makes_room():
    """More is started than memory holds at worst; what the engine puts back goes on."""
    check_scheduler(lambda: refill(makes_room=True), makes_room=True)


class TestEveryRequestEndsOnce:
    """ToyEngine checks at each step: what starts waits, fits rows and memory (or is alone), has a cap from one token
    beyond its own to its limit, and an empty engine never idles."""

    @patient
    @given(worlds(), schedulers())
    def test_with_its_own_length(self, world: World, scheduler):
        """Each request ends exactly once, with exactly its tokens."""
        engine = world.engine(scheduler)
        engine.add(world.requests)
        engine.run()
        assert engine.finished == world.expected

    @patient
    @given(worlds(), schedulers())
    def test_when_the_engine_makes_room(self, world: World, scheduler):
        """Rows that are cut for want of memory, or as asked, come back and end too."""
        engine = world.engine(scheduler, has_foreign_cuts=True)
        engine.add(world.requests)
        engine.run()
        assert engine.finished == world.expected

    @patient
    @given(worlds(), schedulers(), st.integers(0, 2**32).map(random.Random))
    def test_when_requests_come_and_go(self, world: World, scheduler, rng: random.Random):
        """Requests may be added while a group runs and removed at any time, unknown and running ids too."""
        engine = world.engine(scheduler)
        pending, removed = list(world.requests), set()
        while pending or engine.waiting or engine.running:
            num = rng.randint(0, 4)
            engine.add(pending[:num])
            pending = pending[num:]
            if rng.random() < 0.2:
                gone = [name for name in world.lengths if rng.random() < 0.1]
                removed |= set(gone) & set(engine.waiting)
                engine.remove([*gone, "never seen"])
            engine.step()
        assert engine.finished == {name: n for name, n in world.expected.items() if name not in removed}

    @patient
    @given(worlds(), schedulers())
    def test_a_request_may_leave_and_come_again(self, world: World, scheduler):
        """What was removed and added again runs once."""
        engine = world.engine(scheduler)
        engine.add(world.requests)
        engine.decide()
        again = [request for request in world.requests if request.id in engine.waiting]
        engine.remove([request.id for request in again])
        engine.add(again)
        engine.run()
        assert engine.finished == world.expected


class TestOrder:
    @patient
    @given(worlds(), sorting_schedulers())
    def test_equal_estimates_keep_arrival_order(self, world: World, scheduler):
        """With nothing known of equal requests, starts stand in arrival order and no cap is below the limit."""
        requests = [replace(request, max_tokens=50) for request in world.requests]
        world = replace(world, requests=requests, guesses=dict.fromkeys(world.guesses))
        engine = world.engine(scheduler)
        engine.add(requests)
        engine.run()
        starts = [start for batch in engine.batches for start in batch]
        assert [start.id for start in starts] == [request.id for request in requests]
        assert {start.cap for start in starts} == {50}

    @patient
    @given(worlds(), schedulers(), st.integers(0, 2**32).map(random.Random))
    def test_does_not_depend_on_the_order_of_the_view(self, world: World, scheduler, rng: random.Random):
        """The view's mappings may stand in any order, or be empty: the scheduler keeps its own."""
        scheduler.add(world.requests, world.estimate(world.requests).capped([r.max_tokens for r in world.requests]))
        twin = world.engine(type(scheduler)(getattr(scheduler, "config", None) or scheduler.batch_size))
        twin.add(world.requests)
        for _ in range(3):
            shuffled = {name: twin.waiting[name] for name in rng.sample(list(twin.waiting), len(twin.waiting))}
            view = View(rng.random(), shuffled, {}, twin.max_rows, twin.kv_tokens, twin.kv_tokens)
            assert scheduler.decide(view) == (twin.decide() if twin.waiting else [])
            twin.running.clear()

    def test_does_not_depend_on_the_hash_seed(self):
        """Two processes with different hash seeds start the same requests in the same batches."""
        program = (
            "from tests.scheduling.compare_schedules import World, refill;"
            "engine = World.drawn(60, 0.6, 1).play(refill(), 8);"
            "print([[s.id for s in batch] for batch in engine.batches])"
        )
        runs = [
            subprocess.run(
                [sys.executable, "-c", program],
                cwd=Path(__file__).parents[2],
                env=os.environ | {"PYTHONHASHSEED": seed},
                capture_output=True,
                text=True,
                check=True,
            )
            for seed in ("1", "2")
        ]
        assert runs[0].stdout == runs[1].stdout
        assert "r59" in runs[0].stdout

    @patient
    @given(worlds(), static_schedulers())
    def test_nothing_starts_beside_a_running_row(self, world: World, scheduler):
        """Static batches: while one row runs, however much is free, nothing starts."""
        engine = world.engine(scheduler)
        engine.add(world.requests)
        running = {"other": RunningRequest("other", 1, 1, 0, 0.0)}
        assert scheduler.decide(View(0.0, engine.waiting, running, 100)) == []


class TestNothingStarves:
    @pytest.mark.parametrize("groups_per_collection", [1, 3])
    def test_cut_requests_run_again_though_new_ones_never_end(self, groups_per_collection: int):
        """In an endless stream a cut request starts again within a few groups, however many new ones wait."""
        config = GroupingConfig(group_size=6, groups_per_collection=groups_per_collection, cap_quantile=0.5)
        rng = random.Random(0)
        world = World([], {}, {}, max_rows=3, kv_tokens=float("inf"), seed=0)
        engine = world.engine(GroupedScheduler(config))
        cut_at: dict[tuple[str, int], int] = {}  # request and its cuts → batches started when the last one came
        for _ in range(600):
            while len(engine.waiting) < 100:
                name = f"r{len(world.lengths)}"
                world.lengths[name], world.guesses[name] = rng.randint(1, 60), 15.0
                engine.add([WaitingRequest(name, 5, 60)])
            engine.step()
            cut = [(name, num) for name, num in engine.num_cuts.items() if name in engine.waiting]
            cut_at = {event: cut_at.get(event, len(engine.batches)) for event in cut}
            oldest = min(cut_at.values(), default=len(engine.batches))
            # A group is 2 batches. A collection holds what k groups had cut, up to three times over: 6 k batches.
            # Who is cut at a collection's start waits for the rest of it, for k groups, and to the next one's end.
            assert len(engine.batches) - oldest <= (6 + 2 + 6) * groups_per_collection
        assert len(engine.num_cuts) > 100
        assert len(engine.finished) > 300

    @patient
    @given(worlds(), static_schedulers().filter(lambda scheduler: hasattr(scheduler, "config")))
    def test_a_request_is_cut_a_few_times_at_most(self, world: World, scheduler):
        """After `max_cuts` cuts (one, where cut answers are written again) a row has its full limit."""
        engine = world.engine(scheduler)
        engine.add(world.requests)
        engine.run()
        is_restarting = getattr(scheduler.config, "on_cut", None) == "restart"
        most = 1 if is_restarting else scheduler.config.max_cuts
        assert max(engine.num_cuts.values(), default=0) <= most
