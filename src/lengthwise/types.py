"""The nouns: requests, what is known of their lengths, what the engine reports, completions.

Standard library and numpy only. All counts are tokens of the served model. An answer's length counts every
generated token once, the end-of-sequence token included (one decode step a token, as vLLM counts it).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lengthwise.errors import RequestError, shown

FinishReason = Literal["stop", "length", "error"]
Message = Mapping[str, Any]
ROLES = ("system", "developer", "user", "assistant")  # of messages


def _check(is_valid: bool, name: str, value: object, wanted: str) -> None:
    if not is_valid:
        raise RequestError("invalid_request", f"{name} is {shown(value)}; it must be {wanted}.")


def _is_mapping(value: object) -> bool:
    return type(value) is dict or isinstance(value, Mapping)  # a dict is seen at once; Mapping costs more, each time


def instruction_prompt(instruction: str, input: str = "") -> str:
    """An instruction and the text that it is about, as the paper's data joins them: on the next line."""
    return f"{instruction}\n{input}" if input else instruction


def message_text(message: Message) -> str:
    """A message's content as plain text: of the API's list of parts those that are texts; nothing where it has none."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    texts = (part.get("text") for part in content if isinstance(part, Mapping)) if isinstance(content, list) else ()
    return "".join(text for text in texts if isinstance(text, str))


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are drawn. Raises RequestError (`invalid_request`) on a value out of range.

    Noise for token i of an answer is a pure function of (seed, i), so an answer does not depend on its
    neighbours, nor on where it was cut and continued.
    """

    temperature: float = 0.0  # 0 is greedy
    top_p: float = 1.0  # smallest set of tokens whose probability reaches top_p
    top_k: int | None = None  # None: all tokens
    repetition_penalty: float = 1.0  # above 1 discourages tokens of the prompt and the answer (CTRL, Hugging Face)
    presence_penalty: float = 0.0  # OpenAI: subtracted once for each token that the answer has
    frequency_penalty: float = 0.0  # OpenAI: subtracted for each time that the answer has the token
    stop: tuple[str, ...] = ()  # the answer ends before the first of these texts
    seed: int | None = None  # None: where noise is drawn, one is given when the request is read

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "repetition_penalty", "presence_penalty", "frequency_penalty"):
            _check(isinstance(getattr(self, name), (int, float)), name, getattr(self, name), "a number")
        for name in ("top_k", "seed"):
            _check(isinstance(getattr(self, name), (int, type(None))), name, getattr(self, name), "a whole number")
        _check(0 <= self.temperature < math.inf, "temperature", self.temperature, "a finite number, 0 or more")
        _check(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        _check(self.top_k is None or self.top_k >= 1, "top_k", self.top_k, "1 or more, or left out")
        _check(0 < self.repetition_penalty < math.inf, "repetition_penalty", self.repetition_penalty, "above 0")
        _check(-2 <= self.presence_penalty <= 2, "presence_penalty", self.presence_penalty, "from -2 to 2")
        _check(-2 <= self.frequency_penalty <= 2, "frequency_penalty", self.frequency_penalty, "from -2 to 2")
        is_texts = isinstance(self.stop, tuple) and all(isinstance(text, str) and text for text in self.stop)
        _check(is_texts, "stop", self.stop, "a tuple of texts that are not empty")

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt with its sampling parameters and its token limit.

    `prompt` is a text or a tuple of chat messages (`role`, `content`). A text becomes one user message where the model
    has a chat template, or with `is_raw` is continued as it is (the API's `completions`). `max_tokens` None means the
    job's default, clamped to the context. `api_fields` are further fields of the OpenAI API that change an answer
    (`tools`, `n`, ...), as given: an engine that can't honour one says so in `prepare`. `metadata` is carried along
    untouched.
    """

    id: str
    prompt: str | tuple[Message, ...]
    sampling: SamplingParams = SamplingParams()
    max_tokens: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    is_raw: bool = False
    api_fields: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        is_prompt = isinstance(self.prompt, str) or (
            isinstance(self.prompt, tuple) and all(map(_is_mapping, self.prompt))
        )
        _check(is_prompt, "prompt", self.prompt, "a text or a tuple of messages")
        is_count = isinstance(self.max_tokens, int) and self.max_tokens >= 1
        _check(self.max_tokens is None or is_count, "max_tokens", self.max_tokens, "a whole number, 1 or more")
        _check(isinstance(self.sampling, SamplingParams), "sampling", self.sampling, "SamplingParams")
        _check(_is_mapping(self.metadata), "metadata", self.metadata, "a mapping")
        _check(isinstance(self.is_raw, bool), "is_raw", self.is_raw, "True or False")
        _check(_is_mapping(self.api_fields), "api_fields", self.api_fields, "a mapping")

    @property
    def text(self) -> str:
        """The prompt as plain text: what text predictors read."""
        if isinstance(self.prompt, str):
            return self.prompt
        return "\n".join(map(message_text, self.prompt))

    def with_seed(self, seed: int) -> Request:
        return replace(self, sampling=replace(self.sampling, seed=seed))


@dataclass(frozen=True, slots=True)
class Prepared:
    """What an engine says of a request that it can run: prompt tokens, and the answer's token limit."""

    prompt_tokens: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """Why a request ended without an answer. `line` is the 1-based line of the input file, where there is one."""

    type: str
    message: str
    line: int | None = None

    @classmethod
    def of(cls, error: RequestError, line: int | None = None) -> ErrorInfo:
        return cls(error.type, str(error), line)


def unsupported_field(request: Request) -> ErrorInfo:
    """What an engine that writes text and nothing else says of a request with `api_fields`."""
    name = min(request.api_fields, key=str)
    value = shown(request.api_fields[name])
    told = f"{name} is {value}, which this engine can't honour; leave it out, or let a server answer."
    return ErrorInfo("unsupported_parameter", told)


# -- what a scheduler sees and says ----------------------------------------------------------------------------


@dataclass(slots=True)  # frozen would be right, and make a million of them take a second longer
class WaitingRequest:
    """A request that waits, as a scheduler sees it. `num_tokens` are already written (it was cut or preempted)."""

    id: str
    prompt_tokens: int
    max_tokens: int
    num_tokens: int = 0
    arrival_s: float = 0.0
    num_cuts: int = 0


@dataclass(slots=True)
class RunningRequest:
    """A request that runs. `cap` and `num_tokens` count the whole answer; `num_tokens` grows with Progress."""

    id: str
    prompt_tokens: int
    cap: int
    num_tokens: int
    started_s: float

    @property
    def reserved_kv_tokens(self) -> int:
        return self.prompt_tokens + self.cap


@dataclass(frozen=True, slots=True)
class View:
    """All that a scheduler may look at. `waiting` and `running` are live mappings in order of arrival and of start.

    `kv_tokens` is what the engine's key/value memory holds in all, in blocks of `kv_block_tokens`; `free_kv_tokens` is
    what it still takes when prompt + cap of everything that runs is reserved. Infinite where the engine has no such
    limit.
    """

    now_s: float
    waiting: Mapping[str, WaitingRequest]
    running: Mapping[str, RunningRequest]
    free_rows: int
    free_kv_tokens: float = math.inf
    kv_tokens: float = math.inf
    kv_block_tokens: int = 1


@dataclass(slots=True)  # not frozen, as WaitingRequest
class Start:
    """Run request `id` until it ends or its answer has `cap` tokens (counted from the answer's first token).

    `priority` is a hint for engines that have a queue of their own: higher is sooner, whichever way the engine's own
    scale runs. `restart` throws away what was written before (recomputation, as in the paper); those tokens are
    counted.
    """

    id: str
    cap: int
    priority: float | None = None
    restart: bool = False


@dataclass(frozen=True, slots=True)
class Preempt:
    """Put a running request back; it waits again with the tokens that it has."""

    id: str


Decision = Start | Preempt


# -- what an engine can do and reports -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do. What it can't is not asked of it, visibly (a feature is off, and said to be)."""

    max_running: int  # rows at once
    kv_tokens: float = math.inf  # prompt and answer tokens that fit at once
    kv_block_tokens: int = 1  # what a row takes of them is rounded up to these
    # When what runs outgrows the memory it gives a row back (Cut, `memory`), so caps may add up to more; and whenever a
    # row leaves it reports the progress of the others, for whoever reckons with what they hold.
    makes_room: bool = False
    can_cut: bool = True  # honours `cap`
    can_continue: bool = True  # honours `tokens_so_far`
    can_preempt: bool = True  # `cancel` gives the tokens back
    can_refill: bool = True  # a request may join others that run; else it waits until all of them have ended
    reports_progress: bool = True
    is_lower_priority_sooner: bool | None = None  # the engine's own scale, which `start` maps to; None: it takes none


@dataclass(slots=True)  # not frozen, as WaitingRequest: an engine may report one of every row at every step
class Progress:
    """A running answer has `num_tokens` tokens by now."""

    id: str
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A row left the engine unfinished; `tokens` is the whole answer so far.

    Reasons: `cap` (it reached its cap), `cancelled` (as asked), `memory` (the engine had to make room).
    """

    id: str
    tokens: tuple[int, ...]
    reason: Literal["cap", "cancelled", "memory"] = "cap"


@dataclass(frozen=True, slots=True)
class Finished:
    """An answer is complete. `completion_tokens` counts the whole answer, tokens before a cut included; `tokens` are
    their ids, where the engine knows them. A server tells `prompt_tokens` only with the answer (None: as prepared), and
    `response` is its own response body, for what a text can't hold (tool calls, several choices)."""

    id: str
    text: str
    finish_reason: Literal["stop", "length"]
    completion_tokens: int
    tokens: tuple[int, ...] = ()
    prompt_tokens: int | None = None
    response: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A request ended without an answer."""

    id: str
    error: ErrorInfo


@dataclass(frozen=True, slots=True, eq=False)
class PromptRead:
    """The engine has read the prompt of an answer that it begins: `state` (width, float32) is what the model's last
    layer made of it, as `Backbone.states` gives it. Sent only by an engine that was asked to (`pool_prompts`), before
    the row's end; perhaps twice, where the row was put back meanwhile."""

    id: str
    state: NDArray[np.float32]


Event = Progress | PromptRead | Cut | Finished | Failed


@dataclass(frozen=True, slots=True)
class PredictedTokens:
    """What was expected of an answer before it was written, in tokens, within its limit."""

    p50: float
    p90: float


@dataclass(frozen=True, slots=True)
class Completion:
    """One request's end: an answer, or an error that names its cause."""

    id: str
    text: str
    finish_reason: FinishReason
    prompt_tokens: int = 0
    completion_tokens: int = 0
    recomputed_tokens: int = 0  # written, thrown away and written again; not part of completion_tokens
    predicted: PredictedTokens | None = None
    error: ErrorInfo | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tokens: tuple[int, ...] = ()  # ids, where the engine knows them
    response: Mapping[str, Any] | None = None  # a server's own response body
