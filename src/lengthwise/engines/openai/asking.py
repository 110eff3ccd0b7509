"""One request from its turn to its end: take a turn, post, judge, and again or done. Runs in the loop's thread."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from lengthwise.engines.openai.answer import NoAnswer, read_answer
from lengthwise.engines.openai.budget import RetryBudget
from lengthwise.engines.openai.client import Client
from lengthwise.engines.openai.concurrency import Limit
from lengthwise.engines.openai.faults import Fault, fault_in
from lengthwise.engines.openai.retry import Health, RetryPolicy, Tries
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
        self._num_asked = 0
        self._news = asyncio.Event()  # replaced each time it is set: a server may be ready
        self._reviving: dict[str, asyncio.Task[None]] = {}

    async def ask(self, question: Question) -> Finished | Failed:
        if self._num_asked == 0:
            self._health.began()
        self._num_asked += 1
        try:
            return await self._ask(question)
        finally:
            self._num_asked -= 1

    async def close(self) -> None:
        tasks = list(self._reviving.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, question: Question) -> Finished | Failed:
        tries = Tries(self._policy)
        self._budget.add_request()
        avoided: Server | None = None
        while True:
            async with self._turn(avoided) as server:
                sent_s = time.monotonic()
                got = await self._try(question, server)
                if isinstance(got, Finished):
                    self._note_answer(server, got, tries)
                    return got
            is_counted = self._note_fault(question, server, got, sent_s)
            error = tries.after(got, time.monotonic(), self._others_answered_s(server), is_counted)
            if error is not None:
                self._health.failed(question.id, got)
                return Failed(question.id, error)
            avoided = server
            if is_counted and got.kind != "limited":  # else the wait is for the server
                await self._wait(tries)

    @asynccontextmanager
    async def _turn(self, avoided: Server | None) -> AsyncIterator[Server]:
        """One's turn, at a server that is ready."""
        await self._turns.take()
        try:
            server = await self._ready_server(avoided)
            server.num_running += 1
            is_trial = server.has_trial = server.is_on_trial
            try:
                yield server
            finally:
                server.num_running -= 1
                server.has_trial = server.has_trial and not is_trial
        finally:
            self._turns.give_back()

    async def _ready_server(self, avoided: Server | None) -> Server:
        while (server := choose(self._servers, time.monotonic(), avoided)) is None:
            left_s = wait_s(self._servers, time.monotonic())
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, LOOK_AGAIN_S) * random.uniform(1.0, 1.1)):
                    await self._news.wait()
        return server

    async def _try(self, question: Question, server: Server) -> Finished | Fault:
        got = await self._client.post(server.url + question.path, question.content)
        if isinstance(got, Fault):
            return got
        try:
            return read_answer(question.id, got, question.max_tokens)
        except NoAnswer as error:
            return self._client.told(fault_in(error))

    async def _wait(self, tries: Tries) -> None:
        """Before the next try that counts."""
        self.num_retries += 1
        await asyncio.sleep(self._policy.delay_s(tries.num_counted, random.random()))
        await self._budget.take()

    # -- what is learned from it -------------------------------------------------------------------------------

    def _note_answer(self, server: Server, answer: Finished, tries: Tries) -> None:
        self._note_work(server)
        self._health.answered()
        if tries.num_counted:
            self._budget.put_back()
        self._limit.answered(answer.completion_tokens, self._turns.num_taken, time.monotonic())
        self._turns.let_in()

    def _note_work(self, server: Server) -> None:
        """A server did its work (which may be to refuse a bad request)."""
        was_closed = server.wait_s(time.monotonic()) > 0
        server.succeeded(time.monotonic())
        if was_closed:
            self._tell_news()

    def _note_fault(self, question: Question, server: Server, fault: Fault, sent_s: float) -> bool:
        """True if the try counts against its request."""
        if fault.is_request_to_blame:
            self._note_work(server)
            if fault.kind == "request":
                self._health.succeeded()
            return True
        now_s = time.monotonic()
        self._note_load(server, fault, sent_s, now_s)
        is_counted = server.faulted(fault, sent_s, now_s, self._policy, random.random())
        self._tell_of_rest(server, now_s)
        if server.is_down and server.url not in self._reviving:  # before anything is raised
            log.warning("%s Going on without it until it is back.", fault.sentence)
            self._reviving[server.url] = asyncio.ensure_future(self._revive(server))
        self._health.faulted(fault, question.id, now_s, self._num_running, is_counted)
        return is_counted

    def _note_load(self, server: Server, fault: Fault, sent_s: float, now_s: float) -> None:
        """Fewer at once may help, but not where another server takes what this one refuses."""
        if fault.kind == "timeout":
            self._limit.late(sent_s, now_s)
        elif fault.kind == "limited":
            others = (other for other in self._servers if other is not server)
            if not any(other.wait_s(now_s) <= 0 for other in others):
                self._limit.refused(sent_s, now_s)

    def _others_answered_s(self, server: Server) -> float:
        """When others last got through; where there are none, it is the request that is refused, and no load."""
        return server.answered_s if self._num_asked > 1 else math.inf

    def _tell_news(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _tell_of_rest(self, server: Server, now_s: float) -> None:
        if server.rests_from_s == now_s and server.rests_until_s - now_s >= LONG_REST_S:
            log.warning("%s asks for a rest of %.0f s.", server.url, server.rests_until_s - now_s)

    @property
    def _num_running(self) -> int:
        return sum(server.num_running for server in self._servers)

    async def _revive(self, server: Server) -> None:
        """Ask a server that is down for its models now and then, until it says anything: no request is at stake. If it
        can't answer for all that, the looks go on as late as they were."""
        while server.is_down:
            server.num_looks += 1
            await asyncio.sleep(self._policy.delay_s(server.num_looks, random.uniform(0.5, 1.0)))
            got = await self._client.get(server.url + "/models")
            if not isinstance(got, Fault) or got.is_from_server:
                break
            self._note_look(got)
        log.warning("%s is back.", server.url)
        if server.is_down:
            server.revived()
        del self._reviving[server.url]
        self._tell_news()

    def _note_look(self, fault: Fault) -> None:
        """Nobody is there: a failure only where somebody waits for it, and nowhere else to go."""
        if self._num_asked == 0 or not all(server.is_down for server in self._servers):
            return
        try:
            self._health.faulted(fault, None, time.monotonic(), self._num_running, is_counted=False)
        except EngineError as error:
            self._on_broken(error)
