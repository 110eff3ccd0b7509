"""Every predictor keeps the contract of LengthPredictor, and the conformance suite sees faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from lengthwise.estimates import LengthEstimates
from lengthwise.predictors.calibrated import CalibratedPredictor
from lengthwise.predictors.constant import ConstantPredictor
from lengthwise.predictors.oracle import OraclePredictor
from lengthwise.predictors.text.boosting_fit import BoostingConfig
from lengthwise.predictors.text.predictor import TextConfig, TextPredictor
from lengthwise.predictors.unknown import UnknownPredictor
from lengthwise.protocols import LengthPredictor
from lengthwise.testing import NoisyOracle, check_predictor
from lengthwise.types import Request

PROMPTS = ["Write a story about a {}.", "What is a {}?", "List five uses of a {}.", "Explain to me how a {} works."]
THINGS = [
    "bicycle",
    "lamp",
    "river",
    "violin",
    "garden",
    "bridge",
    "clock",
    "kettle",
    "window",
    "ladder",
    "coin",
    "map",
]
REQUESTS = [Request(f"{t}-{p}", prompt.format(t)) for t in THINGS for p, prompt in enumerate(PROMPTS)] * 2
LENGTHS = [(300, 10, 80, 150)[i % 4] + 3 * (i % 7) for i in range(len(REQUESTS))]
BY_ID = dict(zip([request.id for request in REQUESTS], LENGTHS, strict=True))

WITH_TREES = TextConfig(boosting=BoostingConfig(min_prompts=20, min_leaf_prompts=5, num_trees=30))

MAKERS: dict[str, Callable[[], LengthPredictor]] = {
    "unknown": UnknownPredictor,
    "constant": lambda: ConstantPredictor.fit(LENGTHS, model="m"),
    "constant length": lambda: ConstantPredictor.of_length(120),
    "oracle": lambda: OraclePredictor(BY_ID, frozenset({REQUESTS[1].id})),
    "text": lambda: TextPredictor.fit(REQUESTS, LENGTHS, model="m"),
    "text with trees": lambda: TextPredictor.fit(REQUESTS, LENGTHS, model="m", config=WITH_TREES),
    "calibrated": lambda: CalibratedPredictor.fit(ConstantPredictor.fit(LENGTHS), REQUESTS, LENGTHS, model="m"),
    "calibrated text": lambda: CalibratedPredictor.fit(MAKERS["text"](), REQUESTS, LENGTHS),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_predictors_keep_the_contract(make: Callable[[], LengthPredictor]) -> None:
    """Each of our predictors passes the conformance suite."""
    check_predictor(make(), REQUESTS[:12])


class _Broken(NoisyOracle):
    """A predictor with one fault."""

    def __init__(self, fault: str) -> None:
        super().__init__(BY_ID, 0.5)
        self.fault = fault

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        known = [request if request.id in BY_ID else REQUESTS[0] for request in requests]
        good = super().predict(known)
        if self.fault == "one row short" and len(requests) > 3:
            return good[:-1]
        if self.fault == "sorted":
            return good[np.argsort(good.median)]
        if self.fault == "depends on neighbours":
            return good.given(len(requests))
        if self.fault == "rising":
            return LengthEstimates(good.survival[:, ::-1], good.at_least, good.limit)
        if self.fault == "NaN":
            return LengthEstimates(good.survival * np.float32(np.nan), good.at_least, good.limit)
        if self.fault == "empty raises" and not requests:
            raise IndexError
        if self.fault == "limited":
            return good.capped([request.max_tokens or np.inf for request in requests])
        return good


@pytest.mark.parametrize(
    "fault", ["one row short", "sorted", "depends on neighbours", "rising", "NaN", "empty raises", "limited"]
)
def test_the_suite_sees_faults(fault: str) -> None:
    """A predictor that breaks one rule fails; without the fault it passes."""
    check_predictor(_Broken("none"), REQUESTS[:12])
    with pytest.raises((AssertionError, IndexError)):
        check_predictor(_Broken(fault), REQUESTS[:12])
