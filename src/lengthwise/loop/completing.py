"""The completion that a request ends with."""

from __future__ import annotations

from lengthwise.loop.flight import Tracked
from lengthwise.types import Completion, ErrorInfo, Finished, Request

CANCELLED = ErrorInfo("cancelled", "The request was cancelled before its answer was complete; run it again.")


def completed(tracked: Tracked, event: Finished) -> Completion:
    return Completion(
        event.id,
        event.text,
        event.finish_reason,
        tracked.prepared.prompt_tokens if event.prompt_tokens is None else event.prompt_tokens,
        event.completion_tokens,
        tracked.recomputed_tokens,
        tracked.predicted,
        metadata=tracked.request.metadata,
        tokens=event.tokens,
        response=event.response,
    )


def failed(request: Request, error: ErrorInfo, tracked: Tracked | None = None) -> Completion:
    """`tracked`: None for a request that the engine did not take."""
    return Completion(
        request.id,
        "",
        "error",
        tracked.prepared.prompt_tokens if tracked else 0,
        recomputed_tokens=tracked.recomputed_tokens if tracked else 0,
        predicted=tracked.predicted if tracked else None,
        error=error,
        metadata=request.metadata,
    )
