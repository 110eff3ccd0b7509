"""What waits is estimated anew when its predictor has learned: so many at a time, in order, and none is left out."""

from __future__ import annotations

import numpy as np
import pytest

from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.estimates import LengthEstimates
from lengthwise.feeds import IterableFeed
from lengthwise.loop import Control, Counts, Loop
from lengthwise.scheduling.refill import RefillConfig, RefillScheduler
from lengthwise.testing import NoisyOracle, WatchedEngine, recorded_lengths
from lengthwise.types import Capabilities, Request

CHUNK = 50
NUM = 1_000
LENGTHS = recorded_lengths(NUM)


class Learning(NoisyOracle):
    """Knows nothing until 10 answers are there, and says something else then, at 20, 40, ... `asked` are the rows of
    each `predict`."""

    def __init__(self) -> None:
        super().__init__(LENGTHS, 0.5)
        self.asked: list[list[str]] = []
        self.num_lessons, self.num_observed, self.next_lesson = 0, 0, 10

    def begin_run(self):
        pass

    def starting_order(self, num):
        return None

    def begin(self, request):
        pass

    def lose(self, request_id):
        pass

    def observe(self, requests, completions):
        self.num_observed += len(requests)

    def learn(self, written):
        if self.num_observed < self.next_lesson:
            return False
        self.next_lesson *= 2
        self.num_lessons += 1
        return True

    def predict(self, requests):
        self.asked.append([request.id for request in requests])
        return super().predict(requests) if self.num_lessons else LengthEstimates.unknown(len(requests))


@pytest.fixture
def learner(monkeypatch) -> Learning:
    for module in ("loop", "ordering"):
        monkeypatch.setattr(f"lengthwise.loop.{module}.INTAKE_CHUNK", CHUNK)
    return Learning()


def run_of(
    learner: Learning, window: int | None = None, margin: float = 2.0, **capabilities
) -> tuple[Loop, WatchedEngine]:
    config = ReplayConfig(Capabilities(max_running=8, **capabilities), progress_interval_s=0.0)
    engine = WatchedEngine(ReplayEngine(LENGTHS, config))
    requests = IterableFeed(Request(name, f"prompt {name}") for name in LENGTHS)
    scheduler = RefillScheduler(RefillConfig("expected", margin))
    return Loop(engine, learner, scheduler, requests, Counts(), Control(), window), engine


def num_of(name: str) -> int:
    return int(name[1:])


def test_a_lesson_costs_two_chunks_and_not_all_that_waits(learner):
    """Of a thousand that wait, with lessons at 10, 20, ..., 640 answers: at most two chunks for each lesson, and each
    once more when its turn comes; never more than a chunk at a time."""
    made, _ = run_of(learner)
    assert sum(1 for _ in made.completions()) == NUM
    assert learner.num_lessons == 7
    anew = learner.asked[NUM // CHUNK :]  # behind the intake
    assert max(map(len, anew)) <= CHUNK
    assert sum(map(len, anew)) <= NUM + learner.num_lessons * (2 * CHUNK + 8)


@pytest.mark.parametrize("window", [None, 20, 300])
def test_what_is_ordered_anew_starts_near_its_place(learner, window):
    """All are answered, in groups by arrival as without lessons: none is passed over by a whole group, whether all is
    read at first or while others wait."""
    made, engine = run_of(learner, window)
    assert sum(1 for _ in made.completions()) == NUM
    places = {name: place for place, name in enumerate(dict.fromkeys(engine.started))}
    assert max(abs(num_of(name) - place) for name, place in places.items()) < 3 * CHUNK
    assert not made.ordering.held_back


def test_what_was_cut_goes_on_before_what_never_began(learner):
    """In little memory rows are cut; a lesson does not put them behind hundreds of others."""
    made, engine = run_of(learner, margin=0.0, kv_tokens=1_100, makes_room=True)
    answers = list(made.completions())
    assert {one.id: one.completion_tokens for one in answers} == {name: min(n, 512) for name, n in LENGTHS.items()}
    begun: dict[str, int] = {}
    gaps = []
    for place, name in enumerate(engine.started):
        if name in begun:
            gaps.append(place - begun[name])
        begun[name] = place
    assert len(gaps) > 20
    assert max(gaps) < 3 * CHUNK


def test_what_is_held_back_can_be_cancelled_and_drained(learner):
    """It ends like all that waits, and nothing is expected of it any more."""
    made, engine = run_of(learner)
    answers = made.completions()
    while not made.ordering.held_back:
        next(answers)
    last = next(reversed(made.ordering.held_back))
    made.control.cancelled_ids.append(last)
    cancelled = next(one for one in answers if one.error is not None)
    assert cancelled.id == last
    assert last not in made.ordering.held_back
    made.control.is_draining = True
    list(answers)
    assert made.is_done
    assert len(engine.started) < NUM
    assert made.counts.expected_tokens == pytest.approx(0, abs=1)


def test_what_is_left_is_told_by_what_was_estimated(learner):
    """What is held back counts with the average of the others: the time left is not said by limits, as if nothing were
    known of it."""
    made, _ = run_of(learner)
    answers = made.completions()
    while not made.ordering.held_back:
        next(answers)
    assert len(made.ordering.held_back) > NUM / 2
    true_tokens = np.sum([min(LENGTHS[name], 512) for name in made.flight.tracked])
    assert made.counts.expected_tokens == pytest.approx(true_tokens, rel=0.3)
