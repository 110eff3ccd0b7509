"""The sample that a run learns from: what was started, finished or not."""

from __future__ import annotations

import numpy as np
import pytest

from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.cold_start.cohort import MAX_CHARACTERS, Cohort, Examples, slim
from lengthwise.predictors.cold_start.predictor import ColdStartPredictor
from lengthwise.predictors.survival import kaplan_meier_median
from lengthwise.testing import recorded_lengths
from lengthwise.types import Capabilities, Request


def begun(num: int, max_members: int = 1_000) -> tuple[Cohort, list[Request]]:
    cohort, requests = Cohort(max_members, seed=0), [Request(f"r{i}", f"prompt {i}") for i in range(num)]
    for request in requests:
        cohort.begin(request)
    return cohort, requests


def as_lengths(examples: Examples) -> dict[str, tuple[float, bool]]:
    lengths = zip(examples.lengths.tolist(), examples.is_censored.tolist(), strict=True)
    return dict(zip((one.id for one in examples.requests), lengths, strict=True))


def test_what_goes_on_is_at_least_as_long_as_what_is_written():
    """Finished ones have lengths, those cut by their limit and those that go on are censored; what failed or has
    written nothing says nothing."""
    cohort, requests = begun(6)
    cohort.end(requests[0], 30, is_cut=False)
    cohort.end(requests[1], 512, is_cut=True)
    cohort.lose("r2")
    cohort.lose("never begun")
    found = as_lengths(cohort.by_progress({"r3": 70, "r4": 0}))
    assert found == {"r0": (30, False), "r1": (512, True), "r3": (70, True)}


def test_a_straggler_is_at_least_as_long_as_what_began_after_it_and_ended():
    """Where nobody says how far an answer has got."""
    cohort, requests = begun(6)
    for number, num_tokens in {0: 900, 2: 40, 3: 200, 5: 300}.items():
        cohort.end(requests[number], num_tokens, is_cut=False)
    assert as_lengths(cohort.of_first(4)) == {
        "r0": (900, False),
        "r1": (300, True),
        "r2": (40, False),
        "r3": (200, False),
    }
    assert cohort.num_open_of(4) == 1


def test_of_many_each_stays_with_the_same_chance():
    """Memory is bounded, and what is kept is from the whole run."""
    cohort, requests = begun(10_000, max_members=400)
    for request in requests:
        cohort.end(request, 5, is_cut=False)
    numbers = cohort.by_progress({}).numbers
    assert len(numbers) == 400
    assert abs(numbers.mean() - 5_000) < 3 * 2_887 / np.sqrt(400)
    assert cohort.num_ended == 10_000
    assert not cohort.num_open_of(10_000)


def test_a_request_is_kept_with_what_predictors_read_and_no_more():
    """A prompt of a megabyte, the row's other columns and huge tools are not held."""
    request = Request(
        "a", "begin " + "x" * 1_000_000, metadata={"user": "u", "text": "…"}, api_fields={"tools": ["y" * 100_000]}
    )
    kept = slim(request)
    assert len(kept.text) <= MAX_CHARACTERS + 1
    assert kept.text.startswith("begin")
    assert kept.metadata == {"user": "u"}
    assert kept.api_fields == {}
    chat = Request("b", ({"role": "system", "content": "s"}, {"role": "user", "content": "u"}), api_fields={"n": 2})
    assert slim(chat) == chat


def test_images_and_long_user_names_are_not_kept():
    """Prompts may be short as texts, and megabytes as messages."""
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "x" * 100_000}}]
    kept = slim(Request("a", ({"role": "user", "content": parts},), metadata={"user": "u" * 100_000}))
    assert kept.prompt == "What is this?"
    assert kept.metadata == {}


@pytest.mark.parametrize("num_ended", [120, 200])
def test_finished_answers_alone_are_too_short_and_the_cohort_is_not(num_ended):
    """Against the true median of all: what finished first lies far below, what was started does not."""
    lengths = recorded_lengths(2_000)

    class Watched(ColdStartPredictor):
        examples: Examples | None = None

        def learn(self, written):
            if self._cohort.num_ended >= num_ended and self.examples is None:
                self.examples = self._cohort.by_progress(written())
            return False

    watched = Watched("replay")
    engine = ReplayEngine(lengths, ReplayConfig(Capabilities(max_running=200), progress_interval_s=0.0))
    Pipeline(engine=engine, predictor=watched).run([Request(name, "prompt") for name in lengths])
    assert watched.examples is not None
    finished = watched.examples.lengths[~watched.examples.is_censored]
    median = np.median(list(lengths.values()))
    assert np.median(finished) < 0.75 * median
    found = kaplan_meier_median(watched.examples.lengths, watched.examples.is_censored)
    assert found == pytest.approx(median, rel=0.2)
