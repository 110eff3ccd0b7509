"""Fakes that ship: a server that can't cut, an error model of any strength, an engine that is watched, lengths."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.errors import EngineError
from lengthwise.estimates import GRID, LengthEstimates
from lengthwise.protocols import Engine
from lengthwise.types import Capabilities, Completion, ErrorInfo, Event, Prepared, Progress, PromptRead, Request


class FakeHTTPEngine(ReplayEngine):
    """An engine like an HTTP chat server: it answers from the first token to the last, in one piece.

    It can't cut, continue or give tokens back; it takes priorities (lower is sooner on its own scale), and keeps those
    that it was given (higher is sooner) in `priorities`. Asked for what it can't do it raises EngineError.
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


class WatchedEngine:
    """An engine that checks, from outside, what is asked of it and what it reports. Passes everything on.

    Rows are never exceeded, nor, unless the engine makes room, key/value memory (but one request alone is let
    through), nothing runs twice, and every start ends in exactly one Cut, Finished or Failed. `started` lists ids in
    order of their starts.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.model = engine.model
        self.started: list[str] = []
        self._reserved: dict[str, int] = {}

    @property
    def capabilities(self) -> Capabilities:
        return self._engine.capabilities

    @property
    def reserved_tokens(self) -> int:
        """Prompt and cap of everything that runs."""
        return sum(self._reserved.values())

    def prepare(self, requests: Sequence[Request]) -> list[Prepared | ErrorInfo]:
        return self._engine.prepare(requests)

    def start(self, request: Request, tokens_so_far: Sequence[int], cap: int, priority: float | None) -> None:
        assert request.id not in self._reserved, f"{request.id} already runs"
        prepared = self._engine.prepare([request])[0]
        assert isinstance(prepared, Prepared)
        assert len(tokens_so_far) < cap <= prepared.max_tokens, f"{request.id}: cap {cap} of {prepared.max_tokens}"
        num_tokens = prepared.prompt_tokens + cap
        total, limits = self.reserved_tokens + num_tokens, self.capabilities
        assert len(self._reserved) < limits.max_running, f"{len(self._reserved) + 1} rows of {limits.max_running}"
        is_free = limits.makes_room or total <= limits.kv_tokens
        assert is_free or not self._reserved, f"{total} tokens of {limits.kv_tokens}"
        self._reserved[request.id] = num_tokens
        self.started.append(request.id)
        self._engine.start(request, tokens_so_far, cap, priority)

    def cancel(self, request_id: str) -> None:
        self._engine.cancel(request_id)

    def poll(self, timeout_s: float) -> list[Event]:
        events = self._engine.poll(timeout_s)
        for event in events:
            assert event.id in self._reserved, f"{event} for a request that does not run"
            if not isinstance(event, (Progress, PromptRead)):
                del self._reserved[event.id]
        return events

    def close(self) -> None:
        assert not self._reserved, f"{', '.join(self._reserved)} started and never ended"
        self._engine.close()


def recorded_lengths(num: int, seed: int = 0) -> dict[str, int]:
    """Log-normal lengths of `num` requests, median 100 tokens, a tenth above 280: the shape of chat answers."""
    rng = random.Random(seed)
    return {f"r{i}": max(1, round(100 * np.exp(rng.gauss(0, 0.8)))) for i in range(num)}
