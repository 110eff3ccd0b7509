"""What every engine keeps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from lengthwise.protocols import Engine
from lengthwise.testing.fakes import WatchedEngine
from lengthwise.types import Cut, Failed, Finished, Prepared, Progress, PromptRead, Request

MAX_SILENCE_S = 300.0  # a large model on a slow device may take this long for its first answer


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
    watched.cancel("never seen")
    watched.close()
    watched.close()


def _answers(engine: WatchedEngine, requests: Sequence[Request], step: int | None = None) -> dict[str, Finished]:
    """Run all requests to their ends, each in pieces of `step` tokens (None: in one)."""
    prepared = {r.id: p for r, p in zip(requests, _prepared(engine, requests), strict=True)}
    queue: list[tuple[Request, tuple[int, ...]]] = [(request, ()) for request in requests]
    running: dict[str, Request] = {}
    done: dict[str, Finished] = {}
    silent_since_s = time.monotonic()
    while queue or running:
        while queue and len(running) < engine.capabilities.max_running:
            request, tokens = queue[0]
            limit = prepared[request.id].max_tokens
            cap = limit if step is None else min(limit, len(tokens) + step)
            total = engine.reserved_tokens + prepared[request.id].prompt_tokens + cap
            if running and total > engine.capabilities.kv_tokens:
                break
            engine.start(request, tokens, cap, None)
            running[request.id] = queue.pop(0)[0]
        events = engine.poll(1.0)
        silent_since_s = time.monotonic() if events else silent_since_s
        assert time.monotonic() - silent_since_s < MAX_SILENCE_S, f"nothing is heard of {', '.join(running)}"
        for event in events:
            assert not isinstance(event, Failed), f"{event} for a valid request"
            if isinstance(event, Finished):
                done[event.id] = event
                del running[event.id]
            elif isinstance(event, Cut):
                queue.append((running.pop(event.id), event.tokens))
    return done


def _prepared(engine: WatchedEngine, requests: Sequence[Request]) -> list[Prepared]:
    prepared = engine.prepare(requests)
    assert all(isinstance(one, Prepared) for one in prepared), "valid requests are prepared"
    return [one for one in prepared if isinstance(one, Prepared)]


def _check_limits(engine: WatchedEngine, requests: Sequence[Request], whole: dict[str, Finished]) -> None:
    for request, prepared in zip(requests, _prepared(engine, requests), strict=True):
        answer = whole[request.id]
        assert 1 <= answer.completion_tokens <= prepared.max_tokens, f"{answer} of {prepared.max_tokens} tokens"
        if answer.finish_reason == "length":
            assert answer.completion_tokens == prepared.max_tokens, "`length` is the request's own limit"
    short = [replace(request, max_tokens=1) for request in requests]
    for answer in _answers(engine, short).values():
        assert answer.completion_tokens == 1, "a limit of one token is kept"


def _check_continuing(engine: WatchedEngine, requests: Sequence[Request], whole: dict[str, Finished]) -> None:
    pieces = _answers(engine, requests, step=7)
    for name, answer in whole.items():
        assert pieces[name] == answer, f"cut every 7 tokens: {pieces[name]}; in one piece: {answer}"


def _check_cancel(engine: WatchedEngine, request: Request) -> None:
    engine.start(request, (), _prepared(engine, [request])[0].max_tokens, None)
    engine.cancel(request.id)
    events = [event for event in engine.poll(1.0) if not isinstance(event, (Progress, PromptRead))]
    assert [(type(event), event.id) for event in events] == [(Cut, request.id)], f"cancelled, but {events}"
    assert isinstance(events[0], Cut)
    assert events[0].reason == "cancelled"
