"""The contracts: predictor, scheduler, engine, backbone. `lengthwise.testing` holds checks for implementations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from lengthwise.estimates import Floats, LengthEstimates
from lengthwise.types import (
    Capabilities,
    Completion,
    Decision,
    ErrorInfo,
    Event,
    Prepared,
    Request,
    View,
    WaitingRequest,
)

Pooling = Literal["mean", "last", "entropy"]  # how the states of a prompt's tokens become one


@runtime_checkable
class LengthPredictor(Protocol):
    """Requests → how long ONE answer to each will be.

    `model` is the identity (`Engine.model`) of the model that it learned from, or None if it holds for any
    (constant, oracle). For any other model it is not used.
    """

    model: str | None

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        """Natural lengths, not yet cut by any limit: one row a request, in order. No side effect."""
        ...

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        """Learn from what finished; may do nothing. No error on content."""
        ...


@runtime_checkable
class Scheduler(Protocol):
    """Waiting and running requests + estimates → what to start, with which cap, and what to put back.

    Pure: no I/O, no clock, no randomness. It keeps its own order, so that a decision among a million costs a
    logarithm. A request that it starts leaves its order; the caller adds it again, with `num_tokens` and
    `num_cuts` grown, when the engine cut it.
    """

    def add(self, requests: Sequence[WaitingRequest], estimates: LengthEstimates) -> None:
        """Take requests in. `estimates` has one row a request, already within its limit and given its tokens so far."""
        ...

    def remove(self, request_ids: Iterable[str]) -> None:
        """Forget waiting requests; ids that do not wait are passed over."""
        ...

    def decide(self, view: View) -> list[Decision]:
        """What to do now. Never starts more than `view.free_rows` rows or `view.free_kv_tokens` tokens, with one
        exception: into an empty engine it starts at least one request. Never leaves a waiting request unstarted
        for ever: with nothing running and something waiting, the answer holds a Start."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Whatever turns requests into answers.

    Every `start` is followed by exactly one Cut, Finished or Failed for that id. Not thread-safe: one caller.
    """

    model: str  # identity of model and revision; changes when the weights do

    @property
    def capabilities(self) -> Capabilities:
        """May shrink while it runs (memory)."""
        ...

    def prepare(self, requests: Sequence[Request]) -> list[Prepared | ErrorInfo]:
        """Count prompt tokens and settle limits, or say why a request can't be run: in order, nothing is started."""
        ...

    def start(self, request: Request, tokens_so_far: Sequence[int], cap: int, priority: float | None) -> None:
        """Begin or continue an answer. Returns at once; work happens in `poll`. `cap` counts the whole answer. Of
        requests that wait inside the engine those with the higher `priority` go first; None: no hint."""
        ...

    def cancel(self, request_id: str) -> None:
        """Stop a running request; the next `poll` reports its Cut (`cancelled`). Unknown ids are passed over."""
        ...

    def poll(self, timeout_s: float) -> list[Event]:
        """Work until something ended or `timeout_s` passed, whichever is first. Raises EngineError if it broke."""
        ...

    def close(self) -> None:
        """Free what it holds; may be called twice."""
        ...


@runtime_checkable
class Backbone(Protocol):
    """A language model that predictors ask or look into, apart from the answers that it writes meanwhile.

    An engine that has one offers it as `backbone()`. Not thread-safe: one caller.
    """

    model: str  # identity, as `Engine.model`

    def ask(self, requests: Sequence[Request], max_tokens: int) -> list[str | None]:
        """Short greedy answers (at most `max_tokens` tokens each), in order; None where a request can't be asked."""
        ...

    def states(self, requests: Sequence[Request], pooling: Pooling) -> Floats:
        """What the model's last layer makes of each prompt, n × width; NaN rows where it can't be read. Pooled over the
        prompt's tokens: their `mean`, the `last` one's, or weighed by the `entropy` of the token that each foretells
        (arXiv 2602.11812). Raises PredictorError where the model can't be looked into (it is behind a server)."""
        ...

    def with_adapter(self, folder: Path) -> Backbone:
        """The same model with a LoRA adapter (PEFT's layout) switched on. Weights are shared, and the model that writes
        the answers stays as it is. Raises PredictorError where that can't be."""
        ...
