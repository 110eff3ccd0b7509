"""The engine behind HTTP: sync outside, one event loop in a thread inside, events through a queue."""

from __future__ import annotations

import asyncio
import math
import queue
from collections.abc import Sequence
from functools import partial

from lengthwise.engines.openai.asking import Asking, Question
from lengthwise.engines.openai.backbone import ServerBackbone
from lengthwise.engines.openai.body import body_of, path_of, prepare
from lengthwise.engines.openai.client import Client
from lengthwise.engines.openai.concurrency import MAX_FOUND, FixedLimit, FoundLimit, FoundLimitConfig, Limit
from lengthwise.engines.openai.options import ServerOptions
from lengthwise.engines.openai.retry import RetryPolicy
from lengthwise.engines.openai.servers import Server
from lengthwise.engines.openai.thread import LoopThread
from lengthwise.errors import EngineError, RequestError, typed_line
from lengthwise.types import Capabilities, Cut, ErrorInfo, Event, Failed, Finished, Prepared, Request


class OpenAIEngine:
    """Answers of servers with OpenAI's API, each asked for once and taken as a whole.

    Nothing is streamed: an answer is used only when all of it is there, so every try may be followed by another, and
    parsing costs one `json.loads` an answer. So it can't cut, continue or give tokens back, and reports no progress;
    `cancel` closes the connection, which ends the work on servers that look (vLLM). `model` is the name that the
    servers know: that the weights behind it stay the same is up to them.

    Prompt tokens are estimated (4 characters each) until the server tells them with the answer; where it tells no
    tokens at all, those of the answer are estimated, too (4 bytes each).
    """

    def __init__(
        self,
        options: ServerOptions,
        model: str,
        client: Client,
        thread: LoopThread,
        policy: RetryPolicy | None = None,
        max_concurrency: int = MAX_FOUND,
    ) -> None:
        self.model = f"served:{model}"
        self._name = model
        self._options = options
        self._client = client
        self._thread = thread
        self._limit = _limit(options, max_concurrency)
        self._asking = Asking(
            client, [Server(url) for url in options.urls], self._limit, policy or policy_of(options), self._break
        )
        self._tasks: dict[str, asyncio.Task[Finished | Failed]] = {}  # touched in the loop's thread only
        self._running: set[str] = set()
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()  # None: look at `_broken`
        self._broken: EngineError | None = None
        self._is_break_said = False
        self._is_rest_given = False  # all that had ended before it broke
        self._policy = policy
        self._max_concurrency = max_concurrency
        self._backbone: ServerBackbone | None = None

    def backbone(self) -> ServerBackbone:
        """The model for predictors that ask it, over connections of its own; closed with this engine."""
        if self._backbone is None:
            self._backbone = ServerBackbone(self.model, self._another)
        return self._backbone

    def _another(self) -> OpenAIEngine:
        """An engine for the same servers, as many requests at once as this one."""
        client, thread = self._client.another(), LoopThread("lengthwise-openai-backbone")
        return OpenAIEngine(self._options, self._name, client, thread, self._policy, self._max_concurrency)

    @property
    def description(self) -> str:
        found = "" if isinstance(self._limit, FixedLimit) else ", found by throughput"
        return f"{self._name} on {', '.join(self._options.urls)}; {self._limit.value} requests at once{found}."

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            max_running=self._limit.value,
            can_cut=False,
            can_continue=False,
            can_preempt=False,
            reports_progress=False,
            is_lower_priority_sooner=self._options.is_lower_priority_sooner,
        )

    @property
    def num_retries(self) -> int:
        """Tries again so far, over all requests; waiting for a server that rests or is away is none."""
        return self._asking.num_retries

    def prepare(self, requests: Sequence[Request]) -> list[Prepared | ErrorInfo]:
        return [prepare(request, self._options) for request in requests]

    def start(self, request: Request, tokens_so_far: Sequence[int], cap: int, priority: float | None) -> None:
        max_tokens = request.max_tokens or self._options.max_tokens
        if tokens_so_far or cap < max_tokens:
            raise EngineError(f"Request {request.id!r}: a server can't cut or continue an answer.")
        if request.id in self._running:
            raise EngineError(f"Request {request.id!r} is already running.")
        if self._thread.is_closed:
            raise EngineError(f"Request {request.id!r}: the engine is closed; open another one.")
        if priority is not None and not math.isfinite(priority):
            raise EngineError(f"Request {request.id!r}: its priority is {priority}; servers take whole numbers only.")
        if self._broken is not None:  # `poll` says it, after what has ended
            self._running.add(request.id)
            self._events.put(Cut(request.id, (), "cancelled"))
            return
        self._is_break_said = False
        try:
            content = body_of(request, self._name, self._options, priority)
        except RequestError as error:
            self._events.put(Failed(request.id, ErrorInfo.of(error)))
            return
        finally:
            self._running.add(request.id)
        self._thread.call(self._begin, Question(request.id, path_of(request), content, max_tokens))

    def cancel(self, request_id: str) -> None:
        if request_id in self._running:
            self._thread.call(self._cancel, request_id)

    def poll(self, timeout_s: float) -> list[Event]:
        """Wait for what ends, and give all of it that is there. Where nobody can be asked any more, what has ended is
        given out first; then this raises EngineError. What is started in between is cut at once."""
        is_broken = self._broken is not None
        events = [] if self._is_rest_given else self._take(timeout_s if self._running and not is_broken else 0.0)
        if not events:
            self._raise_if_broken()
        self._is_rest_given = is_broken
        self._running.difference_update(event.id for event in events)
        return events

    def _raise_if_broken(self) -> None:
        """Once: what else breaks is of the same cause, until something is started again."""
        broken, self._broken, self._is_rest_given = self._broken, None, False
        if broken is not None:
            self._is_break_said = True
            raise broken

    def close(self) -> None:
        if self._thread.is_closed:
            return
        if self._backbone is not None:
            self._backbone.close()
        self._thread.run(self._shut_down())
        self._thread.close()
        self._running.clear()

    def _take(self, timeout_s: float) -> list[Event]:
        events: list[Event] = []
        try:
            event = self._events.get(timeout=timeout_s) if timeout_s > 0 else self._events.get_nowait()
            while True:
                if event is not None:
                    events.append(event)
                event = self._events.get_nowait()
        except queue.Empty:
            return events

    # -- in the loop's thread ----------------------------------------------------------------------------------

    def _begin(self, question: Question) -> None:
        task = asyncio.get_running_loop().create_task(self._asking.ask(question))
        self._tasks[question.id] = task
        task.add_done_callback(partial(self._end, question.id))

    def _cancel(self, request_id: str) -> None:
        if request_id in self._tasks:
            self._tasks[request_id].cancel()

    def _end(self, request_id: str, task: asyncio.Task[Finished | Failed]) -> None:
        """Every task ends here, once: also one that was cancelled before it began."""
        del self._tasks[request_id]
        if task.cancelled():
            self._events.put(Cut(request_id, (), "cancelled"))
        elif (error := task.exception()) is None:
            self._events.put(task.result())
        else:
            self._break(error)
            self._events.put(Cut(request_id, (), "cancelled"))

    def _break(self, error: BaseException) -> None:
        """Have `poll` raise it; of several the first is the one that tells."""
        if not isinstance(error, EngineError):
            cause, error = error, EngineError(f"A request could not be sent: {typed_line(error)}.")
            error.__cause__ = cause
        if not self._is_break_said:
            self._broken = self._broken or error
        self._events.put(None)

    async def _shut_down(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._asking.close()
        await self._client.close()


def policy_of(options: ServerOptions) -> RetryPolicy:
    return RetryPolicy(max_retries=options.max_retries, patience_s=options.patience_s)


def _limit(options: ServerOptions, max_concurrency: int) -> Limit:
    if options.concurrency is not None:
        return FixedLimit(options.concurrency)
    return FoundLimit(FoundLimitConfig(most=max_concurrency))
