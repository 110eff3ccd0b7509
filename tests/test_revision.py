"""Estimates that are revised when the engine has read a prompt."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.estimates import LengthEstimates
from lengthwise.feeds import IterableFeed
from lengthwise.loop import Control, Counts, Loop
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.constant import ConstantPredictor
from lengthwise.scheduling.grouping import GroupedScheduler
from lengthwise.scheduling.refill import RefillScheduler
from lengthwise.testing import recorded_lengths
from lengthwise.types import Capabilities, PromptRead, Request

LENGTHS = recorded_lengths(400)
SHORT_MEMORY = ReplayConfig(Capabilities(max_running=16, kv_tokens=2_000))


class TellingEngine(ReplayEngine):
    """It tells of each prompt that begins: a state whose one number is the answer's true length."""

    def __init__(self, config=SHORT_MEMORY):
        super().__init__(LENGTHS, config)
        self.pooling = None
        self.read = []

    def pool_prompts(self, pooling):
        self.pooling = pooling
        return True

    def start(self, request, tokens_so_far, cap, priority):
        super().start(request, tokens_so_far, cap, priority)
        if self.pooling and not tokens_so_far:
            self.read.append(PromptRead(request.id, np.array([LENGTHS[request.id]], np.float32)))

    def poll(self, timeout_s):
        read, self.read = self.read, []
        return read or super().poll(timeout_s)


class Reviser:
    """Beforehand it says that all answers have 20 to 50 tokens; from the state it knows the length."""

    model = None
    wants_states = "mean"

    def __init__(self):
        self.prior = ConstantPredictor.fit(range(20, 50))
        self.predict, self.observe = self.prior.predict, self.prior.observe
        self.num_revised = 0

    def revise(self, requests, states):
        self.num_revised += len(requests)
        return LengthEstimates.certain(states[:, 0])


class Watching(GroupedScheduler):
    """It keeps what waits again, and what is said of it."""

    def __init__(self):
        super().__init__()
        self.added_again = {}

    def add(self, requests, estimates):
        super().add(requests, estimates)
        for row, request in enumerate(requests):
            if request.num_tokens:
                self.added_again[request.id] = (request, float(estimates[row].quantile(0.9)[0]))


def run(predictor, engine, scheduler=None):
    requests = [Request(name, f"prompt {name}") for name in LENGTHS]
    with Pipeline(engine=engine, predictor=predictor, scheduler=scheduler or Watching()) as pipeline:
        return pipeline.run(requests), pipeline


def test_what_was_cut_waits_with_its_revised_estimate():
    """A row that is cut is expected to have its true length, known from its prompt's state; without the state it would
    be 20 to 50 tokens, and each further cut a guess."""
    scheduler, reviser = Watching(), Reviser()
    answers, pipeline = run(reviser, TellingEngine(), scheduler)
    assert len(scheduler.added_again) > 50
    for name, (request, high) in scheduler.added_again.items():
        assert high == min(LENGTHS[name], 512)
        assert request.num_cuts == 1, "known exactly, it is cut no second time"
    assert reviser.num_revised == len(LENGTHS)
    assert {answer.id: answer.completion_tokens for answer in answers} == {
        name: min(length, 512) for name, length in LENGTHS.items()
    }
    assert pipeline.counts.expected_tokens == pytest.approx(0, abs=1e-3)
    unrevised = Watching()
    run(Reviser().prior, TellingEngine(), unrevised)
    assert max(request.num_cuts for request, _ in unrevised.added_again.values()) > 1


def test_predicted_stays_what_the_order_was_decided_by():
    """`predicted` is what was known before the prompt was read: one guess for all here."""
    answers, _ = run(Reviser(), TellingEngine())
    assert {answer.predicted for answer in answers} == {answers[0].predicted}
    assert answers[0].predicted.p50 < 50


def test_what_is_left_to_be_written_follows_the_revision():
    """Once all prompts are read the loop expects the true number of tokens."""
    engine = TellingEngine(ReplayConfig(Capabilities(max_running=len(LENGTHS))))
    engine.pool_prompts("mean")
    requests = IterableFeed(Request(name, "prompt") for name in LENGTHS)
    loop = Loop(engine, Reviser(), RefillScheduler(), requests, Counts(), Control())
    completions = loop.completions()
    ended = next(completions)
    rest = sum(min(length, 512) for name, length in LENGTHS.items() if name in loop.flight.tracked)
    assert ended.completion_tokens == min(LENGTHS.values())
    assert loop.counts.expected_tokens == pytest.approx(rest, rel=1e-5)


class _Faulty(Reviser):
    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def revise(self, requests, states):
        if self.fault == "raises":
            raise ZeroDivisionError
        return LengthEstimates.unknown(len(requests) + 1)


@pytest.mark.parametrize("fault", ["raises", "too many"])
def test_a_predictor_that_fails_to_revise_costs_no_answer(fault, caplog):
    """It is said, and the first estimates hold."""
    answers, _ = run(_Faulty(fault), TellingEngine())
    assert [answer.finish_reason for answer in answers].count("error") == 0
    assert "_Faulty" in caplog.text


def test_prompts_of_a_former_run_are_passed_over():
    """An engine that was left may still have something to tell: of ids that nobody knows, or when it is emptied."""
    engine = TellingEngine()
    engine.read = [PromptRead("never seen", np.zeros(1, np.float32))]
    assert len(run(Reviser(), engine)[0]) == len(LENGTHS)
    engine = TellingEngine()
    with Pipeline(engine=engine, predictor=Reviser()) as pipeline:
        stream = pipeline.stream(Request(name, "prompt") for name in LENGTHS)
        next(stream)
        engine.read = [PromptRead(name, np.zeros(1, np.float32)) for name in engine._rows]
        stream.close()
        assert not engine._rows, "all that ran was taken back, though prompts were told meanwhile"


class TextEngine(ReplayEngine):
    """It knows what its answers read: their tokens, and when they will end."""

    def text_of(self, tokens):
        return f"{len(tokens)} tokens"


class TextReviser(Reviser):
    """It knows the lengths when it sees a text; `asked` are the texts and numbers of tokens that it saw."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def revise_running(self, requests, texts, num_tokens):
        self.asked += zip(texts, num_tokens, strict=True)
        return LengthEstimates.certain([LENGTHS[request.id] for request in requests])


def test_what_was_cut_is_estimated_by_what_is_written():
    """An answer that is cut waits with what its text tells; its predictor sees the text of all that is there."""
    scheduler, reviser = Watching(), TextReviser()
    answers, _ = run(reviser, TextEngine(LENGTHS, SHORT_MEMORY), scheduler)
    assert len(scheduler.added_again) > 50
    assert all(high == min(LENGTHS[name], 512) for name, (_, high) in scheduler.added_again.items())
    assert all(request.num_cuts == 1 for request, _ in scheduler.added_again.values())
    assert len(reviser.asked) == len(scheduler.added_again)
    assert all(text == f"{num} tokens" for text, num in reviser.asked)
    assert len(answers) == len(LENGTHS)


@pytest.mark.parametrize("fault", ["raises", "too few", "no texts"])
def test_without_texts_the_number_of_tokens_is_what_is_known(fault, caplog):
    """An engine that knows none, or a predictor that fails: the first estimates hold, and no answer is lost."""

    class Faulty(TextReviser):
        def revise_running(self, requests, texts, num_tokens):
            if fault == "raises":
                raise ZeroDivisionError
            return LengthEstimates.unknown(len(requests) - 1)

    scheduler = Watching()
    engine = ReplayEngine if fault == "no texts" else TextEngine
    answers, _ = run(Faulty(), engine(LENGTHS, SHORT_MEMORY), scheduler)
    assert [answer.finish_reason for answer in answers].count("error") == 0
    assert max(request.num_cuts for request, _ in scheduler.added_again.values()) > 1
    assert ("Faulty" in caplog.text) == (fault != "no texts")


class Looking:
    """A predictor that reads prompts itself, or leaves it to an engine that runs `own_model`."""

    model = None

    def __init__(self, own_model):
        self.own_model = own_model
        self.predict, self.observe = Reviser().predict, Reviser().observe

    def from_prefill(self, model):
        return Reviser() if model == self.own_model else None


@pytest.mark.parametrize(
    ("make_engine", "own_model", "is_told"),
    [
        (TellingEngine, "replay", True),
        (TellingEngine, "another", False),
        (lambda: ReplayEngine(LENGTHS, SHORT_MEMORY), "replay", False),
    ],
)
def test_who_reads_the_prompts(make_engine, own_model, is_told, caplog):
    """The engine, if it can tell and runs the model that the predictor looks into; else the predictor. It is said."""
    engine = make_engine()
    with caplog.at_level(logging.INFO, "lengthwise"), Pipeline(engine=engine, predictor=Looking(own_model)) as pipeline:
        assert isinstance(pipeline.predictor, Reviser) == is_told
    assert ("no prompt is read beforehand" if is_told else "All prompts are read beforehand") in caplog.text
    assert getattr(engine, "pooling", None) == ("mean" if is_told else None)


def test_an_engine_is_asked_no_longer_when_the_next_predictor_needs_no_states():
    """One engine, two pipelines."""
    engine = TellingEngine()
    Pipeline(engine=engine, predictor=Reviser())
    assert engine.pooling == "mean"
    Pipeline(engine=engine, predictor="none")
    assert engine.pooling is None
