"""One request from its turn to its end: take a turn, post, judge, and again or done. Runs in the loop's thread."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from lengthwise.engines.openai.answer import NoAnswer, read_answer
from lengthwise.engines.openai.client import Client
from lengthwise.engines.openai.concurrency import Limit
from lengthwise.engines.openai.faults import Fault, fault_in
from lengthwise.engines.openai.retry import Health, RetryBudget, RetryPolicy, Tries
from lengthwise.engines.openai.servers import Server, choose, wait_s
from lengthwise.engines.openai.turns import Turns
from lengthwise.errors import EngineError
from lengthwise.types import Failed, Finished

log = logging.getLogger("lengthwise")

LOOK_AGAIN_S = 1.0  # at the latest: a server that rests may be back before its time
LONG_REST_S = 10.0  # worth a line to whoever watches


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a server: the body of one request, for `path` below a base URL."""

    id: str
    path: str
    content: bytes
    max_tokens: int


class Asking:
    """Questions in, Finished or Failed out; raises EngineError where it is no use to go on. What is found out
    while nothing is asked goes to `on_broken`. For one event loop."""

    def __init__(
        self,
        client: Client,
        servers: Sequence[Server],
        limit: Limit,
        policy: RetryPolicy,
        on_broken: Callable[[EngineError], None],
    ) -> None:
        self.num_retries = 0
        self._on_broken = on_broken
        self._client = client
        self._servers = servers
        self._limit = limit
        self._policy = policy
        self._turns = Turns(limit)
        self._budget = RetryBudget(policy)
        self._health = Health(policy)
        self._reviving: dict[str, asyncio.Task[None]] = {}

    async def ask(self, question: Question) -> Finished | Failed:
        tries = Tries(self._policy, time.monotonic())
        self._budget.add_request()
        avoided: Server | None = None
        while True:
            async with self._turn(avoided) as server:
                sent_s = time.monotonic()
                got = await self._try(question, server)
                if isinstance(got, Finished):
                    self._note_answer(server, got)
                    return got
            self._note_fault(question, server, got, sent_s)
            error = tries.after(got, time.monotonic())
            if error is not None:
                self._note_failed(question, got)
                return Failed(question.id, error)
            avoided = server
            await self._wait(got, tries)

    async def close(self) -> None:
        tasks = list(self._reviving.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @asynccontextmanager
    async def _turn(self, avoided: Server | None) -> AsyncIterator[Server]:
        """One's turn, at a server that is ready."""
        await self._turns.take()
        try:
            server = await self._ready_server(avoided)
            server.num_running += 1
            try:
                yield server
            finally:
                server.num_running -= 1
        finally:
            self._turns.give_back()

    async def _ready_server(self, avoided: Server | None) -> Server:
        while (server := choose(self._servers, time.monotonic(), avoided)) is None:
            left_s = wait_s(self._servers, time.monotonic())
            await asyncio.sleep(min(left_s, LOOK_AGAIN_S) * random.uniform(1.0, 1.1))
        return server

    async def _try(self, question: Question, server: Server) -> Finished | Fault:
        got = await self._client.post(server.url + question.path, question.content)
        if isinstance(got, Fault):
            return got
        try:
            return read_answer(question.id, got, question.max_tokens)
        except NoAnswer as error:
            return self._client.told(fault_in(error))

    async def _wait(self, fault: Fault, tries: Tries) -> None:
        """Before the next try. Where the server rests, that is the wait."""
        if fault.kind in ("limited", "unreachable"):
            return
        self.num_retries += 1
        budget_s = self._budget.take(time.monotonic())
        await asyncio.sleep(max(budget_s, self._policy.delay_s(tries.num_counted, random.random())))

    # -- what is learned from it -------------------------------------------------------------------------------

    def _note_answer(self, server: Server, answer: Finished) -> None:
        server.succeeded()
        self._health.succeeded()
        self._limit.answered(answer.completion_tokens, self._turns.num_taken, time.monotonic())
        self._turns.let_in()

    def _note_fault(self, question: Question, server: Server, fault: Fault, sent_s: float) -> None:
        if fault.is_request_to_blame:
            if fault.kind == "request":
                server.succeeded()
                self._health.succeeded()
            return
        now_s = time.monotonic()
        if fault.is_overload:
            self._limit.overloaded(sent_s, now_s)
        server.faulted(fault, sent_s, now_s, self._policy, random.random())
        self._tell_of_rest(server, now_s)
        self._health.faulted(fault, question.id, now_s, self._num_running)
        if server.is_down and server.url not in self._reviving:
            log.warning("%s Going on without it until it is back.", fault.message)
            self._reviving[server.url] = asyncio.ensure_future(self._revive(server))

    def _note_failed(self, question: Question, fault: Fault) -> None:
        if fault.kind != "request":
            self._health.failed(question.id, fault)

    def _tell_of_rest(self, server: Server, now_s: float) -> None:
        if server.rests_from_s == now_s and server.rests_until_s - now_s >= LONG_REST_S:
            log.warning("%s asks for a rest of %.0f s.", server.url, server.rests_until_s - now_s)

    @property
    def _num_running(self) -> int:
        return sum(server.num_running for server in self._servers)

    async def _revive(self, server: Server) -> None:
        """Ask a server that is down for its models now and then, until it says anything: no request is at stake."""
        for num_failures in itertools.count(1):
            await asyncio.sleep(self._policy.delay_s(num_failures, random.uniform(0.5, 1.0)))
            got = await self._client.get(server.url + "/models")
            if not isinstance(got, Fault) or got.is_from_server:
                break
            try:
                self._health.faulted(got, None, time.monotonic(), self._num_running)
            except EngineError as error:
                self._on_broken(error)
        log.warning("%s is back.", server.url)
        server.is_down, server.num_faults = False, 0
        del self._reviving[server.url]
