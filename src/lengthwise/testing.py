"""Fakes that ship, and the checks that every predictor, scheduler and engine passes, third-party ones too.

    from lengthwise.testing import check_scheduler
    check_scheduler(lambda: MyScheduler())

A check raises AssertionError with what was claimed and what was seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.errors import EngineError
from lengthwise.estimates import GRID, LengthEstimates
from lengthwise.pipeline import Pipeline
from lengthwise.protocols import Engine, LengthPredictor, Scheduler
from lengthwise.types import (
    Capabilities,
    Completion,
    Cut,
    ErrorInfo,
    Event,
    Failed,
    Finished,
    Prepared,
    Progress,
    Request,
    Start,
    View,
    WaitingRequest,
)

# -- fakes -----------------------------------------------------------------------------------------------------


class FakeHTTPEngine(ReplayEngine):
    """An engine like an HTTP chat server: it answers from the first token to the last, in one piece.

    It can't cut, continue or give tokens back; it takes a priority, lower sooner, and keeps what it was given in
    `priorities`. Asked for what it can't do it raises EngineError.
    """

    model = "fake-http"

    def __init__(self, lengths: dict[str, int], max_running: int = 8) -> None:
        capabilities = Capabilities(
            max_running=max_running,
            can_cut=False,
            can_continue=False,
            can_preempt=False,
            reports_progress=False,
            is_lower_priority_sooner=True,
        )
        super().__init__(lengths, ReplayConfig(capabilities))
        self.priorities: dict[str, float | None] = {}

    def start(self, request: Request, tokens_so_far: Sequence[int], cap: int, priority: float | None) -> None:
        prepared = self.prepare([request])[0]
        assert isinstance(prepared, Prepared)
        if tokens_so_far or cap < prepared.max_tokens:
            raise EngineError(f"Request {request.id!r}: this engine can't cut or continue an answer.")
        self.priorities[request.id] = priority
        super().start(request, tokens_so_far, cap, priority)

    def poll(self, timeout_s: float) -> list[Event]:
        return [event for event in super().poll(timeout_s) if not isinstance(event, Progress)]


class NoisyOracle:
    """True lengths, multiplied by log-normal noise: an error model of any strength. `sigma` 0 is the oracle."""

    model: str | None = None

    def __init__(self, lengths: dict[str, int], sigma: float, seed: int = 0) -> None:
        self._lengths, self._sigma, self._seed = lengths, sigma, seed

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        if not self._sigma:
            return LengthEstimates.certain([self._lengths[request.id] for request in requests])
        noise = [random.Random(f"{self._seed}/{request.id}").gauss(0, self._sigma) for request in requests]
        centres = np.array([self._lengths[request.id] for request in requests]) * np.exp(noise)
        z = (np.log(GRID)[None, :] - np.log(centres)[:, None]) / self._sigma
        return LengthEstimates.from_survival(1 / (1 + np.exp(1.702 * z)))  # logistic stand-in for the normal

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        pass


# -- schedulers ------------------------------------------------------------------------------------------------


def check_scheduler(make: Callable[[], Scheduler]) -> None:
    """Every request ends exactly once, limits of rows and memory hold, nothing starves; on engines that cut and that
    don't, with estimates that are exact, noisy and absent, and with memory for little more than one request."""
    for sigma in (None, 0.0, 0.7):
        for max_running, kv_tokens in ((1, 600), (7, 2_000), (64, float("inf"))):
            _check_run(make, sigma, Capabilities(max_running=max_running, kv_tokens=kv_tokens))
    _check_without_cuts(make)
    _check_unknown_is_arrival_order(make)
    _check_remove(make)


def recorded_lengths(num: int, seed: int = 0) -> dict[str, int]:
    """Log-normal lengths of `num` requests, median 100 tokens, a tenth above 280: the shape of chat answers."""
    rng = random.Random(seed)
    return {f"r{i}": max(1, round(100 * np.exp(rng.gauss(0, 0.8)))) for i in range(num)}


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
    Pipeline(engine=engine, predictor="none", scheduler=make()).run([Request(name, "prompt") for name in lengths])
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


class WatchedEngine:
    """An engine that checks, from outside, what is asked of it and what it reports. Passes everything on.

    Rows and key/value memory are never exceeded (but one request alone is let through), nothing runs twice, and
    every start ends in exactly one Cut, Finished or Failed. `started` lists ids in order of their starts.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.model = engine.model
        self.started: list[str] = []
        self._reserved: dict[str, int] = {}

    @property
    def capabilities(self) -> Capabilities:
        return self._engine.capabilities

    def prepare(self, requests: Sequence[Request]) -> list[Prepared | ErrorInfo]:
        return self._engine.prepare(requests)

    def start(self, request: Request, tokens_so_far: Sequence[int], cap: int, priority: float | None) -> None:
        assert request.id not in self._reserved, f"{request.id} already runs"
        prepared = self._engine.prepare([request])[0]
        assert isinstance(prepared, Prepared)
        assert len(tokens_so_far) < cap <= prepared.max_tokens, f"{request.id}: cap {cap} of {prepared.max_tokens}"
        self._reserved[request.id] = prepared.prompt_tokens + cap
        self.started.append(request.id)
        total, limits = sum(self._reserved.values()), self.capabilities
        assert len(self._reserved) <= limits.max_running, f"{len(self._reserved)} rows of {limits.max_running}"
        assert total <= limits.kv_tokens or len(self._reserved) == 1, f"{total} tokens of {limits.kv_tokens}"
        self._engine.start(request, tokens_so_far, cap, priority)

    def cancel(self, request_id: str) -> None:
        self._engine.cancel(request_id)

    def poll(self, timeout_s: float) -> list[Event]:
        events = self._engine.poll(timeout_s)
        for event in events:
            assert event.id in self._reserved, f"{event} for a request that does not run"
            if not isinstance(event, Progress):
                del self._reserved[event.id]
        return events

    def close(self) -> None:
        self._engine.close()


# -- engines ---------------------------------------------------------------------------------------------------


def check_engine(engine: Engine, requests: Sequence[Request]) -> None:
    """Every start ends exactly once, counts are right, cancelled rows come back, and where the engine can: an answer
    that was cut and continued equals one that was not. `requests` must be valid and greedy (or have seeds)."""
    watched = WatchedEngine(engine)
    whole = _answers(watched, requests)
    assert sorted(whole) == sorted(request.id for request in requests), "every request is answered"
    _check_limits(watched, requests, whole)
    if engine.capabilities.can_cut and engine.capabilities.can_continue:
        _check_continuing(watched, requests, whole)
    if engine.capabilities.can_preempt:
        _check_cancel(watched, requests[0])
    engine.cancel("never seen")
    engine.close()
    engine.close()


def _answers(engine: Engine, requests: Sequence[Request], step: int | None = None) -> dict[str, Finished]:
    """Run all requests to their ends, each in pieces of `step` tokens (None: in one)."""
    limits = {r.id: p.max_tokens for r, p in zip(requests, _prepared(engine, requests), strict=True)}
    queue: list[tuple[Request, tuple[int, ...]]] = [(request, ()) for request in requests]
    running: dict[str, Request] = {}
    done: dict[str, Finished] = {}
    while queue or running:
        while queue and len(running) < engine.capabilities.max_running:
            request, tokens = queue.pop(0)
            limit = limits[request.id]
            engine.start(request, tokens, limit if step is None else min(limit, len(tokens) + step), None)
            running[request.id] = request
        for event in engine.poll(1.0):
            assert not isinstance(event, Failed), f"{event} for a valid request"
            if isinstance(event, Finished):
                done[event.id] = event
                del running[event.id]
            elif isinstance(event, Cut):
                queue.append((running.pop(event.id), event.tokens))
    return done


def _prepared(engine: Engine, requests: Sequence[Request]) -> list[Prepared]:
    prepared = engine.prepare(requests)
    assert all(isinstance(one, Prepared) for one in prepared), "valid requests are prepared"
    return [one for one in prepared if isinstance(one, Prepared)]


def _check_limits(engine: Engine, requests: Sequence[Request], whole: dict[str, Finished]) -> None:
    for request, prepared in zip(requests, _prepared(engine, requests), strict=True):
        answer = whole[request.id]
        assert 1 <= answer.completion_tokens <= prepared.max_tokens, f"{answer} of {prepared.max_tokens} tokens"
        if answer.finish_reason == "length":
            assert answer.completion_tokens == prepared.max_tokens, "`length` is the request's own limit"
    short = [replace(request, max_tokens=1) for request in requests]
    for answer in _answers(engine, short).values():
        assert answer.completion_tokens == 1, "a limit of one token is kept"


def _check_continuing(engine: Engine, requests: Sequence[Request], whole: dict[str, Finished]) -> None:
    pieces = _answers(engine, requests, step=7)
    for name, answer in whole.items():
        assert pieces[name] == answer, f"cut every 7 tokens: {pieces[name]}; in one piece: {answer}"


def _check_cancel(engine: Engine, request: Request) -> None:
    engine.start(request, (), _prepared(engine, [request])[0].max_tokens, None)
    engine.cancel(request.id)
    events = [event for event in engine.poll(1.0) if not isinstance(event, Progress)]
    assert [(type(event), event.id) for event in events] == [(Cut, request.id)], f"cancelled, but {events}"
    assert isinstance(events[0], Cut)
    assert events[0].reason == "cancelled"


# -- predictors ------------------------------------------------------------------------------------------------

ODD_PROMPTS = ("", " ", "?", "\n" * 50, "长度" * 200, "🙂", "a" * 100_000, "\x00", "<|im_end|>", "word " * 20_000)


def check_predictor(predictor: LengthPredictor, requests: Sequence[Request]) -> None:
    """One row a request, in order; the same alone as in a batch; proper distributions; odd prompts do no harm."""
    odd = [Request(f"odd{i}", prompt) for i, prompt in enumerate(ODD_PROMPTS)]
    mixed = [*requests, *odd]
    estimates = predictor.predict(mixed)
    assert len(estimates) == len(mixed), f"{len(estimates)} estimates for {len(mixed)} requests"
    _check_distributions(estimates)
    reverse = predictor.predict(mixed[::-1])
    assert np.allclose(estimates.survival, reverse.survival[::-1], atol=1e-5), "order does not matter"
    for row in (0, len(requests) - 1):
        alone = predictor.predict([mixed[row]])
        assert np.allclose(alone.survival, estimates.survival[[row]], atol=1e-5), "alone as in a batch"
    assert len(predictor.predict([])) == 0, "no requests, no estimates"


def _check_distributions(estimates: LengthEstimates) -> None:
    curves = np.asarray(estimates.survival)
    assert curves.shape == (len(estimates), len(GRID)), f"curves are {curves.shape}"
    assert curves.dtype == np.float32, f"curves are {curves.dtype}"
    assert np.isfinite(curves).all(), "curves are finite"
    assert (curves >= 0).all(), "chances are not negative"
    assert (curves <= 1).all(), "chances are at most 1"
    assert (np.diff(curves, axis=1) <= 1e-5).all(), "survival never rises"
    limited = estimates.capped(4096)
    assert (limited.quantile(0.5) <= limited.quantile(0.9)).all(), "quantiles grow"
    assert (limited.given(1000).mean() > 1000).all(), "an answer that goes on gets longer"


__all__ = [
    "FakeHTTPEngine",
    "NoisyOracle",
    "WatchedEngine",
    "check_engine",
    "check_predictor",
    "check_scheduler",
    "recorded_lengths",
]
