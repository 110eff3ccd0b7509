"""What every scheduler keeps."""

from __future__ import annotations

from collections.abc import Callable

from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.estimates import LengthEstimates
from lengthwise.pipeline import Pipeline
from lengthwise.protocols import LengthPredictor, Scheduler
from lengthwise.testing.fakes import FakeHTTPEngine, NoisyOracle, WatchedEngine, recorded_lengths
from lengthwise.types import Capabilities, Request, Start, View, WaitingRequest


def check_scheduler(make: Callable[[], Scheduler], *, makes_room: bool = False) -> None:
    """Every request ends exactly once, limits of rows and memory hold, nothing starves; on engines that cut and that
    don't, with estimates that are exact, noisy and absent, and with memory for little more than one request.
    `makes_room`: memory is up to the engine (see Capabilities)."""
    for sigma in (None, 0.0, 0.7):
        for max_running, kv_tokens in ((1, 600), (7, 2_000), (64, float("inf"))):
            _check_run(make, sigma, Capabilities(max_running, kv_tokens, makes_room=makes_room))
    _check_without_cuts(make)
    _check_unknown_is_arrival_order(make)
    _check_remove(make)


def _check_run(make: Callable[[], Scheduler], sigma: float | None, capabilities: Capabilities) -> None:
    lengths = recorded_lengths(150)
    engine = WatchedEngine(ReplayEngine(lengths, ReplayConfig(capabilities)))
    predictor: LengthPredictor | str = "none" if sigma is None else NoisyOracle(lengths, sigma)
    pipeline = Pipeline(engine=engine, predictor=predictor, scheduler=make())
    answers = pipeline.run([Request(name, f"prompt {name}") for name in lengths])
    assert [answer.id for answer in answers] == list(lengths), "every request ends once"
    for answer in answers:
        expected = min(lengths[answer.id], 512)
        assert answer.completion_tokens == expected, f"{answer.id}: {answer.completion_tokens} tokens, not {expected}"


def _check_without_cuts(make: Callable[[], Scheduler]) -> None:
    lengths = recorded_lengths(60)
    pipeline = Pipeline(engine=FakeHTTPEngine(lengths), predictor=NoisyOracle(lengths, 0.7), scheduler=make())
    answers = pipeline.run([Request(name, "prompt") for name in lengths])
    assert len(answers) == len(lengths), "an engine that can't cut gets every request through"
    assert all(answer.recomputed_tokens == 0 for answer in answers), "nothing was written twice"


def _check_unknown_is_arrival_order(make: Callable[[], Scheduler]) -> None:
    lengths = recorded_lengths(60)
    engine = WatchedEngine(ReplayEngine(lengths, ReplayConfig(Capabilities(max_running=4))))
    requests = [Request(name, "prompt", max_tokens=100 + 7 * i % 50) for i, name in enumerate(lengths)]
    Pipeline(engine=engine, predictor="none", scheduler=make()).run(requests)
    assert engine.started == list(lengths), "with nothing known, requests start in arrival order and nothing is cut"


def _check_remove(make: Callable[[], Scheduler]) -> None:
    scheduler = make()
    waiting = {f"r{i}": WaitingRequest(f"r{i}", 5, 100) for i in range(10)}
    scheduler.add(list(waiting.values()), LengthEstimates.unknown(10).capped(100))
    scheduler.remove(["r3", "never seen"])
    del waiting["r3"]
    started: set[str] = set()
    while waiting:
        decisions = scheduler.decide(View(0.0, waiting, {}, 4))
        starts = [decision for decision in decisions if isinstance(decision, Start)]
        assert starts, "an empty engine and something that waits: something starts"
        for start in starts:
            assert start.id in waiting, f"{start.id} does not wait"
            del waiting[start.id]
            started.add(start.id)
    assert started == {f"r{i}" for i in range(10)} - {"r3"}, "what was removed does not start, all else does"
