"""Fakes that ship, and the checks that every predictor, scheduler and engine passes, third-party ones too.

    from lengthwise.testing import check_scheduler
    check_scheduler(lambda: MyScheduler())

A check raises AssertionError with what was claimed and what was seen.
"""

from lengthwise.testing.engines import check_engine
from lengthwise.testing.fakes import FakeHTTPEngine, NoisyOracle, WatchedEngine, recorded_lengths
from lengthwise.testing.predictors import check_predictor
from lengthwise.testing.schedulers import check_scheduler

__all__ = [
    "FakeHTTPEngine",
    "NoisyOracle",
    "WatchedEngine",
    "check_engine",
    "check_predictor",
    "check_scheduler",
    "recorded_lengths",
]
