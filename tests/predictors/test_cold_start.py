"""A run teaches itself: when it learns, when it believes what it learned, and that no answer depends on it."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from typing import Any

import numpy as np
import pytest

from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.estimates import LengthEstimates
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.cold_start.predictor import ColdStartConfig, ColdStartPredictor
from lengthwise.predictors.cold_start.study import Lesson, Study
from lengthwise.predictors.text.predictor import TextPredictor
from lengthwise.predictors.unknown import UnknownPredictor
from lengthwise.protocols import Learner
from lengthwise.scheduling.refill import RefillConfig, RefillScheduler
from lengthwise.testing import FakeHTTPEngine, WatchedEngine, check_predictor
from lengthwise.types import Capabilities, Completion, ErrorInfo, Failed, PredictedTokens, Progress, Request

KINDS = {"Name the capital of": 8, "List ten facts about": 120, "Write a long story about": 400}


def job(num: int, seed: int = 0) -> tuple[list[Request], dict[str, int]]:
    """Prompts whose first words say how long the answer will be, but for a factor."""
    rng = random.Random(seed)
    requests, lengths = [], {}
    for number in range(num):
        kind = rng.choice(list(KINDS))
        requests.append(Request(f"r{number}", f"{kind} country {rng.randrange(50)}."))
        lengths[f"r{number}"] = max(1, round(KINDS[kind] * np.exp(rng.gauss(0, 0.3))))
    return requests, lengths


def replay(lengths: dict[str, int], max_running: int = 8, **capabilities: Any) -> ReplayEngine:
    config = ReplayConfig(Capabilities(max_running=max_running, **capabilities), progress_interval_s=0.0)
    return ReplayEngine(lengths, config)


def test_auto_learns_and_switches_over(caplog):
    """Where the first words tell the length, a few hundred answers show it; the last go by length, and what was
    expected of it stands in its completions. Answers are the same as in arrival order."""
    requests, lengths = job(600)
    engine = WatchedEngine(replay(lengths))
    with caplog.at_level(logging.INFO), Pipeline(engine=engine) as pipeline:
        answers = pipeline.run(requests)
        learner = pipeline.predictor
    assert isinstance(learner, ColdStartPredictor)
    assert isinstance(learner, Learner)
    assert learner.switched_at in range(100, 120)
    report = learner.report()
    assert report is not None
    assert report["kind"] == "text"
    assert report["learned_from"] >= 400
    assert report["tau_held_out"] > 0.4
    assert report["mae_held_out"] < report["mae_constant"]
    assert sum("used from here on" in line for line in caplog.messages) == 1
    with Pipeline(engine=replay(lengths), predictor="none") as plain:
        expected = plain.run(requests)
    assert [(one.id, one.text) for one in answers] == [(one.id, one.text) for one in expected]
    first, rest = engine.started[:100], engine.started[200:]
    by_id = {one.id: one for one in answers}
    assert not any(by_id[name].predicted for name in first)
    assert all(by_id[name].predicted for name in rest)
    assert np.mean([lengths[name] for name in rest[-128:-64]]) > 2 * np.mean([lengths[name] for name in rest[-16:]])


def test_noise_never_switches():
    """Lengths that have nothing to do with the prompts: no gain is seen in any of several jobs."""
    for seed in range(4):
        requests, lengths = job(250, seed)
        shuffled = list(lengths.values())
        random.Random(seed).shuffle(shuffled)
        with Pipeline(engine=replay(dict(zip(lengths, shuffled, strict=True))), seed=seed) as pipeline:
            pipeline.run(requests)
            learner = pipeline.predictor
        assert isinstance(learner, ColdStartPredictor)
        assert learner.learned is None
        assert learner.verdict is not None
        report = learner.report()
        assert report is not None
        assert report["kind"] is None
        assert report["learned_from"] == 0


def test_samples_of_one_prompt_are_no_evidence_for_each_other():
    """Words that tell nothing of lengths, four answers of one length to each prompt: what one answer tells of the next
    is not what a prompt tells of its answer."""
    rng = random.Random(3)
    requests, lengths = [], {}
    for prompt in range(150):
        text = " ".join(rng.choice("abcdefghijklmnop") * 3 for _ in range(6))
        length = rng.choice([20, 60, 200, 500])
        for sample in range(4):
            requests.append(Request(f"{prompt}-{sample}", text))
            lengths[requests[-1].id] = length
    with Pipeline(engine=replay(lengths)) as pipeline:
        pipeline.run(requests)
        learner = pipeline.predictor
    assert isinstance(learner, ColdStartPredictor)
    assert learner.verdict is not None
    assert learner.switched_at is None


def test_no_gain_is_said(caplog):
    """At the end, where nothing was used."""
    requests, lengths = job(150)
    learner = ColdStartPredictor("replay", ColdStartConfig(min_gain=1e9))
    with caplog.at_level(logging.INFO), Pipeline(engine=replay(lengths), predictor=learner) as pipeline:
        pipeline.run(requests)
        learner.finish()
    assert "showed no gain" in caplog.text


def test_a_sorted_file_starts_in_random_order():
    """The first hundred that start are from all over the window, the same ones by the same seed; too few to learn from
    stay in their order."""
    requests, lengths = job(2_000)
    lengths = {name: 50 for name in lengths}

    def started(num: int, seed: int) -> list[int]:
        engine = WatchedEngine(replay(lengths))
        with Pipeline(engine=engine, seed=seed) as pipeline:
            pipeline.run(requests[:num])
        return [int(name[1:]) for name in engine.started]

    first = started(2_000, 1)[:100]
    assert 700 < np.mean(first) < 1_300
    assert first == started(2_000, 1)[:100]
    assert first != started(2_000, 2)[:100]
    assert started(99, 1) == list(range(99))


def test_a_server_that_tells_no_progress_teaches_too():
    """It waits for the first hundred that were started, not for the first hundred that end."""
    requests, lengths = job(500)
    with Pipeline(engine=FakeHTTPEngine(lengths, max_running=64)) as pipeline:
        answers = pipeline.run(requests)
        learner = pipeline.predictor
    assert isinstance(learner, ColdStartPredictor)
    assert learner.switched_at in (100, 200)
    assert all(one.error is None for one in answers)


def test_a_fit_in_the_background_is_taken_over_when_it_is_done():
    """`learn` returns at once; a later call finds what was learned."""
    requests, lengths = job(120)
    learner = ColdStartPredictor("served:m", ColdStartConfig(in_background=True))
    for request in requests:
        learner.begin(request)
        learner.observe([request], [Completion(request.id, "", "stop", completion_tokens=lengths[request.id])])
    assert not learner.learn(None)
    assert learner._fit is not None
    learner._fit.result()
    assert learner.learn(None)
    assert learner.learned is not None


def test_a_pipeline_that_is_closed_leaves_no_fit_behind(monkeypatch):
    """Left in the middle of a fit: closing waits for it, and nothing of it is used or kept."""
    is_fitting, may_end = threading.Event(), threading.Event()
    fitted = Study.lesson
    kept: list[object] = []

    def slow(*arguments: Any, **options: Any) -> Lesson:
        is_fitting.set()
        assert may_end.wait(10)
        return fitted(*arguments, **options)

    monkeypatch.setattr(Study, "lesson", slow)
    requests, lengths = job(400)
    pipeline = Pipeline(engine=FakeHTTPEngine(lengths), predictor=learner_in_background(kept))
    answers = pipeline.stream(requests)
    while not is_fitting.is_set():
        next(answers)
    answers.close()
    threading.Timer(0.2, may_end.set).start()
    pipeline.close()
    assert may_end.is_set(), "closing has waited"
    assert not any(thread.name.startswith("lengthwise-learning") for thread in threading.enumerate())
    assert not kept
    pipeline.close()


def learner_in_background(kept: list[object]) -> ColdStartPredictor:
    return ColdStartPredictor("fake-http", ColdStartConfig(in_background=True), on_learned=kept.append)


def test_estimating_anew_keeps_rows_and_memory_in_order():
    """In the memory of four whole answers, rows are put back and go on while lessons come: each request ends once with
    its whole answer, and nothing is expected in the end."""
    requests, lengths = job(900, seed=3)
    engine = WatchedEngine(replay(lengths, max_running=32, kv_tokens=4 * 540, makes_room=True))
    scheduler = RefillScheduler(RefillConfig("expected", margin=0.0))
    with Pipeline(engine=engine, scheduler=scheduler, window=200) as pipeline:
        answers = pipeline.run(requests)
        learner = pipeline.predictor
    assert isinstance(learner, ColdStartPredictor)
    assert learner.switched_at is not None
    assert {one.id: one.completion_tokens for one in answers} == {name: min(n, 512) for name, n in lengths.items()}
    assert len(engine.started) > 900  # some were put back
    assert pipeline.counts.predicted_remaining_tokens == pytest.approx(0, abs=1)
    assert pipeline.counts.written_tokens == 0


def test_it_learns_only_when_the_engine_has_told_how_far_all_are():
    """Else answers that just ended would stand beside others as they were a while ago."""

    class Watched(ColdStartPredictor):
        seen: list[dict[str, int]]

        def learn(self, written):
            self.seen.append(written())
            return False

    class Telling(ReplayEngine):
        def poll(self, timeout_s):
            events = super().poll(timeout_s)
            if progress := [event for event in events if isinstance(event, Progress)]:
                tellings.append({event.id: event.num_tokens for event in progress})
            return events

    tellings: list[dict[str, int]] = []
    requests, lengths = job(300)
    learner = Watched("replay")
    learner.seen = []
    engine = Telling(lengths, ReplayConfig(Capabilities(max_running=8), progress_interval_s=1.0))
    with Pipeline(engine=engine, predictor=learner) as pipeline:
        pipeline.run(requests)
    assert len(tellings) > 3
    assert learner.seen == tellings


def test_nothing_is_learned_where_order_is_asked_for():
    """`--schedule arrival` looks at no lengths, so nothing is put out of its order either."""
    requests, lengths = job(200)
    engine = WatchedEngine(replay(lengths))
    with Pipeline(engine=engine, scheduler="arrival") as pipeline:
        pipeline.run(requests)
        assert isinstance(pipeline.predictor, UnknownPredictor)
    assert engine.started == list(lengths)


def test_what_a_former_run_learned_is_used_at_once_and_until_as_much_is_known():
    """A predictor of 300 answers is not replaced by one of 100."""
    requests, lengths = job(500, seed=1)
    former = TextPredictor.fit(requests[:300], [lengths[one.id] for one in requests[:300]], model="replay")
    learner = ColdStartPredictor("replay")
    learner.resume(former)
    seen: list[int] = []
    learner.on_learned = lambda learned: seen.append(learned.learned_from.num_examples)
    engine = WatchedEngine(replay(lengths))
    with Pipeline(engine=engine, predictor=learner) as pipeline:
        answers = pipeline.run(requests)
    assert all(one.predicted for one in answers)
    assert engine.started != list(lengths)
    assert min(seen) >= 300
    learner.finish()
    assert max(seen) == 500


def test_a_learner_that_fails_costs_no_answer(caplog):
    """It is told nothing more, and all are answered."""

    class Broken(ColdStartPredictor):
        def learn(self, written):
            raise RuntimeError("no lesson today")

    requests, lengths = job(150)
    with Pipeline(engine=replay(lengths), predictor=Broken("replay")) as pipeline:
        answers = pipeline.run(requests)
    assert all(one.error is None for one in answers)
    assert sum("could not learn" in line for line in caplog.messages) == 1


@pytest.mark.parametrize("prompt", ["", "same", "\ud800", "x" * 200_000])
def test_prompts_that_teach_nothing_cost_nothing(prompt):
    """All the same, empty, or odd: no predictor, no error."""
    _, lengths = job(130)
    with Pipeline(engine=replay(lengths)) as pipeline:
        answers = pipeline.run([Request(name, prompt) for name in lengths])
        assert isinstance(pipeline.predictor, ColdStartPredictor)
        assert pipeline.predictor.learned is None
        pipeline.predictor.finish()
    assert all(one.error is None for one in answers)


def test_cancelled_and_failed_requests_teach_nothing():
    """What ended without an answer is no member any more, nor is what a run left behind."""
    requests, lengths = job(60)
    engine = replay(lengths)
    with Pipeline(engine=engine) as pipeline:
        answers = pipeline.stream(requests)
        next(answers)
        cancelled = next(iter(engine._rows))
        pipeline.cancel(cancelled)
        while next(answers).id != cancelled:
            pass
        learner: Any = pipeline.predictor
        open_ids = set(learner._cohort._open)
        assert open_ids
        assert cancelled not in open_ids
        pipeline.stop()
        list(answers)
        pipeline.run([requests[0]])
        assert not open_ids & set(learner._cohort._open)
        kept = [request.id for request in learner._cohort.by_progress(dict.fromkeys(lengths, 9)).requests]
        assert not (open_ids | {cancelled}) & set(kept) - {requests[0].id}


def test_a_server_that_fails_at_first_teaches_later(caplog):
    """Of those that were started first all but one fail: too few to learn from, and no reason to learn no more."""
    requests, lengths = job(700)
    failing = {f"r{number}" for number in range(99)}
    lengths |= dict.fromkeys(failing, 1)  # none of them goes on when it is time to learn

    class Away(FakeHTTPEngine):
        def poll(self, timeout_s):
            away = ErrorInfo("server", "It is away.")
            return [Failed(one.id, away) if one.id in failing else one for one in super().poll(timeout_s)]

    learner = ColdStartPredictor("fake-http")
    learner.starting_order = lambda num: None  # type: ignore[method-assign]
    with Pipeline(engine=Away(lengths), predictor=learner) as pipeline:
        assert sum(one.error is None for one in pipeline.run(requests)) == 601
    assert learner.switched_at is not None
    assert not any("could not learn" in line for line in caplog.messages)


@pytest.mark.parametrize("order", [[0] * 300, range(1, 301), range(299), [0.0] * 300])
def test_a_starting_order_that_is_none_costs_no_answer(order, caplog):
    """Requests left out, twice or not there: they start as they came, and the predictor is asked no more."""
    requests, lengths = job(300)

    class Confused(ColdStartPredictor):
        def starting_order(self, num):
            return order

    engine = WatchedEngine(replay(lengths))
    with Pipeline(engine=engine, predictor=Confused("replay")) as pipeline:
        assert all(one.error is None for one in pipeline.run(requests))
    assert engine.started[:20] == [f"r{number}" for number in range(20)]
    assert sum("could not learn" in line for line in caplog.messages) == 1


def test_what_is_not_known_any_more_is_not_called_predicted():
    """The predictor fails when all is estimated anew: nothing is known of what waits from there on."""
    requests, lengths = job(300)

    class Failing(ColdStartPredictor):
        def predict(self, requests):
            if self.learned is not None:
                raise RuntimeError("forgotten")
            return LengthEstimates.certain([5] * len(requests))

    with Pipeline(engine=replay(lengths), predictor=Failing("replay")) as pipeline:
        answers = {one.predicted for one in pipeline.run(requests)}
    assert answers == {PredictedTokens(5, 5), None}


def test_a_later_run_of_the_same_pipeline_knows_what_the_former_learned():
    """Sync and async alike: one predictor for the pipeline's life."""
    requests, lengths = job(300)
    with Pipeline(engine=replay(lengths)) as pipeline:
        asyncio.run(pipeline.arun(requests))
        learner = pipeline.predictor
        assert isinstance(learner, ColdStartPredictor)
        assert learner.learned is not None
        again = pipeline.run(requests[:20])
    assert all(one.predicted for one in again)


def test_it_keeps_the_contract_of_predictors():
    """Before and after it has learned."""
    requests, lengths = job(150)
    learner = ColdStartPredictor("m")
    check_predictor(learner, requests[:5])
    learner = ColdStartPredictor("m")
    for request in requests:
        learner.observe([request], [Completion(request.id, "", "stop", completion_tokens=lengths[request.id])])
    learner.finish()
    assert learner.learned is not None
    check_predictor(learner, requests[:5])


@pytest.mark.parametrize(
    ("name", "value"), [("first_answers", 3), ("num_folds", 1), ("min_share_ended", 0.0), ("max_examples", 0)]
)
def test_settings_out_of_range_are_refused(name, value):
    """By name and value."""
    with pytest.raises(ValueError, match=str(value)):
        ColdStartConfig(**{name: value})
