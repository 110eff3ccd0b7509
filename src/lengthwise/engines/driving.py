"""A few questions through an engine of one's own, without loop and scheduler: what backbones ask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lengthwise.protocols import Engine
from lengthwise.types import Cut, Failed, Finished, Request

POLL_S = 1.0


def answered(engine: Engine, requests: Sequence[Request], max_tokens: int) -> Iterator[Finished]:
    """The answers of at most `max_tokens` tokens, as they finish; requests that fail are left out. They start in order,
    as many at once as the engine takes. Raises EngineError if the engine broke."""
    by_id = {request.id: request for request in requests}
    waiting: list[tuple[str, tuple[int, ...]]] = [(request.id, ()) for request in reversed(requests)]
    num_running = 0
    while waiting or num_running:
        while waiting and num_running < engine.capabilities.max_running:
            request_id, tokens = waiting.pop()
            engine.start(by_id[request_id], tokens, max_tokens, None)
            num_running += 1
        ended = [event for event in engine.poll(POLL_S) if isinstance(event, Cut | Finished | Failed)]
        num_running -= len(ended)
        waiting += [(event.id, event.tokens) for event in ended if isinstance(event, Cut)]  # memory was short
        yield from (event for event in ended if isinstance(event, Finished))
