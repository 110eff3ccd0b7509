"""The contracts: predictor, scheduler, engine, backbone. `lengthwise.testing` holds checks for implementations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from lengthwise.costs import StepCost
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

    def last_state_after(self, requests: Sequence[Request], vector: Floats) -> Floats:
        """What the last layer makes of `vector` (width) behind each prompt, in place of a token's embedding: n × width;
        NaN rows where a prompt can't be read. Raises PredictorError where the model can't be looked into."""
        ...

    def with_adapter(self, folder: Path) -> Backbone:
        """The same model with a LoRA adapter (PEFT's layout) switched on. Weights are shared, and the model that writes
        the answers stays as it is. Raises PredictorError where that can't be."""
        ...


@runtime_checkable
class PromptPooling(Protocol):
    """An engine that can tell what its model made of the prompts that it reads."""

    def pool_prompts(self, pooling: Pooling | None) -> bool:
        """From now on send a PromptRead for each answer that begins, before its end; None: no more. Answers stay as
        they are. False where it can't with this model: none is sent."""
        ...


@runtime_checkable
class Timed(Protocol):
    """An engine that knows what its passes take."""

    step_cost: StepCost | None  # None: nothing was measured


@runtime_checkable
class PromptReviser(LengthPredictor, Protocol):
    """A predictor that knows more once the engine has read a prompt, and looks into no model beforehand."""

    wants_states: Pooling

    def revise(self, requests: Sequence[Request], states: Floats) -> LengthEstimates:
        """Natural lengths, as `predict`, from states (n × width) as PromptRead brings them."""
        ...


@runtime_checkable
class Learner(LengthPredictor, Protocol):
    """A predictor that learns from a run while it goes on: not only what ended is told, but also what was started, so
    that it can learn from a sample that is not made of short answers."""

    def begin_run(self) -> None:
        """A run begins; what had not ended in a former one never will."""
        ...

    def starting_order(self, num: int) -> Sequence[int] | None:
        """The order in which `num` requests, taken in together, shall start; None: as they came."""
        ...

    def begin(self, request: Request) -> None:
        """It is started for the first time. `observe` follows, or `lose`."""
        ...

    def lose(self, request_id: str) -> None:
        """It ended without an answer. Ids that were not begun are passed over."""
        ...

    def learn(self, written: Callable[[], Mapping[str, int]] | None) -> bool:
        """Now is the time: asked at every step at which the engine told how far all are. `written` gives the tokens of
        all that have not ended; None: the engine never tells. True if `predict` says something else now, so that what
        waits is to be estimated anew."""
        ...


@runtime_checkable
class PartialText(Protocol):
    """An engine that knows what the tokens of an answer read before it has ended."""

    def text_of(self, tokens: Sequence[int]) -> str:
        """As far as it can be read: a character that more tokens make may be missing at the end."""
        ...


@runtime_checkable
class AnswerReviser(LengthPredictor, Protocol):
    """A predictor that knows more once a part of an answer is written."""

    def revise_running(
        self, requests: Sequence[Request], texts: Sequence[str], num_tokens: Sequence[int]
    ) -> LengthEstimates:
        """Natural lengths of answers of which `num_tokens` tokens are there, which read `texts`: all above. With
        nothing written as `predict`."""
        ...


@runtime_checkable
class Watcher(Protocol):
    """Whoever looks on at a run and changes nothing."""

    def watched(self, scheduler: Scheduler, clock: Callable[[], float]) -> Scheduler:
        """A run begins: a scheduler that decides as this one does, and lets its decisions be seen."""
        ...

    def noted(self, completions: Iterator[Completion]) -> Iterator[Completion]:
        """The same answers, each as soon as it is there."""
        ...
