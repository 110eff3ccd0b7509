"""Rows that leave make gaps in the cache; gaps are closed, and no row's keys are lost by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lengthwise.engines.transformers.forward import MIN_DENSITY
from lengthwise.types import Progress, Request

Make = Callable[..., Any]


@pytest.fixture
def long_and_short(make_engine: Make, tools: Any) -> tuple[list[Request], list[Request]]:
    """Requests that write 40 tokens when they are alone, and others that end after two."""
    found = [replace(request, max_tokens=40) for request in tools.make_requests(60, seed=3, max_prompt=90)]
    answers = tools.Driver(make_engine(), at_once=1).run(found)
    endless = [request for request in found if answers[request.id].finish_reason == "length"]
    return endless[:4], [replace(request, max_tokens=2) for request in endless[4:16]]


def run_out(engine: Any) -> dict[str, Any]:
    ended: dict[str, Any] = {}
    while engine._running or engine._waiting:
        ended |= {event.id: event for event in engine.poll(5.0) if not isinstance(event, Progress)}
    return ended


def test_a_step_reads_few_free_blocks(make_engine: Make, tools: Any, long_and_short: Any) -> None:
    """Twelve rows leave beneath four: from then on at most a quarter of what a step reads is nobody's, and the four
    go on as if they were alone."""
    long, short = long_and_short
    alone = tools.Driver(make_engine(), at_once=1).run([*long, *short])
    engine, densities = make_engine(), []
    step = engine._model.step

    def watched(rows: Any) -> Any:
        logits = step(rows)
        densities.append(sum(len(row.blocks) for row in rows) / len(engine._model.last_view.newest.row))
        return logits

    engine._model.step = watched
    for request in [*short, *long]:
        engine.start(request, [], 10**6, None)
    assert run_out(engine) == alone
    assert len(densities) == 40
    assert min(densities) >= MIN_DENSITY


def test_a_row_that_could_not_enter_is_untouched_by_gaps(make_engine: Make, tools: Any, long_and_short: Any) -> None:
    """Memory ends while rows enter: some wait on. Gaps that are closed meanwhile change neither their answers nor
    those of the rows that run."""
    long, short = long_and_short
    alone = tools.Driver(make_engine(), at_once=1).run([*long, *short])
    engine = make_engine(patience_row_steps=6)
    running, waiting = [*short[:3], long[0]], [*long[1:], *short[3:8]]
    for request in running:
        engine.start(request, [], 10**6, None)
    engine._survive(engine._enter)
    read = engine._model._read

    def full(rows: Any) -> None:
        engine._model._read = read
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    engine._model._read = full
    for request in waiting:
        engine.start(request, [], 10**6, None)
    engine._survive(engine._enter)
    kept = [*engine._running, *engine._waiting]
    assert [row.id for row in kept] == [request.id for request in [*running, *long[1:3]]]
    moved = watch_moves(engine)
    ended = run_out(engine)
    assert moved
    for row in kept:
        assert ended[row.id] == alone[row.id]


def watch_moves(engine: Any) -> list[dict[int, int]]:
    """The moves that are made from now on, as they are made."""
    cache, moved = engine._model._cache, []
    move = cache.move

    def watched(moves: dict[int, int]) -> None:
        moved.extend([moves] if moves else [])
        move(moves)

    cache.move = watched
    return moved


@pytest.mark.parametrize("num_layers_moved", [0, 1])
def test_memory_may_end_while_gaps_are_closed(
    num_layers_moved: int, make_engine: Make, tools: Any, long_and_short: Any
) -> None:
    """Some layers are copied, others are not: until all are, every row still has the blocks that it had."""
    long, short = long_and_short
    alone = tools.Driver(make_engine(), at_once=1).run([*long, *short])
    engine, failed = make_engine(), []
    cache = engine._model._cache
    move = cache.move

    def full(moves: dict[int, int]) -> None:
        if moves and len(failed) < 3:
            failed.append(moves)
            layers, cache.layers = cache.layers, cache.layers[:num_layers_moved]
            move(moves)
            cache.layers = layers
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        move(moves)

    cache.move = full
    driver = tools.Driver(engine, at_once=16)
    assert driver.run([*short, *long]) == alone
    assert len(failed) == 3
    assert {cut.reason for cut in driver.cuts} == {"memory"}
