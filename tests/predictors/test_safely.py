"""A predictor that fails in the middle of a run costs what it would have said, and is told of once."""

from __future__ import annotations

import logging

import numpy as np

from lengthwise.engines.replay import ReplayEngine
from lengthwise.estimates import LengthEstimates
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.safely import safe_observe, safe_predict
from lengthwise.types import Completion, Request


class Failing:
    model = None

    def predict(self, requests):
        raise RuntimeError("no estimate")

    def observe(self, requests, completions):
        raise RuntimeError("nothing learned")


class Short(Failing):
    def predict(self, requests):
        return LengthEstimates.certain([5])


def test_a_predictor_that_always_fails_is_told_of_once(caplog):
    """With the place where it fails; all requests are answered."""
    lengths = {str(i): 5 for i in range(50)}
    with caplog.at_level(logging.WARNING), Pipeline(engine=ReplayEngine(lengths), predictor=Failing()) as pipeline:
        answers = pipeline.run([Request(name, "x") for name in lengths])
    assert [answer.completion_tokens for answer in answers] == [5] * 50
    warnings = [record for record in caplog.records if "Failing" in record.getMessage()]
    assert len(warnings) == 1
    assert warnings[0].exc_info is not None


def test_another_one_is_told_of_again(caplog):
    for _ in range(2):
        safe_observe(Failing(), Request("a", "x"), Completion("a", "", "stop"))
    assert sum("could not learn from a" in line for line in caplog.messages) == 2


def test_too_few_estimates_are_not_used():
    assert np.isinf(safe_predict(Short(), [Request("a", "x"), Request("b", "x")]).median).all()
