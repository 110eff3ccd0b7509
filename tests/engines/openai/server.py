"""A server with OpenAI's API on a real socket, which misbehaves as its script says.

    with ScriptedServer(lambda call: Reply(500) if call.number == 1 else answer(call)) as server:
        ... server.url ... server.calls

It runs in a thread of its own. An answer without a script is deterministic: as many words as the prompt says.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

MODEL = "toy"


@dataclass(frozen=True)
class Call:
    """One request as the server saw it. `number` counts POSTs from 1; `attempt` those with the same prompt."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    number: int
    attempt: int
    at_s: float

    @property
    def prompt(self) -> str:
        return self.body.get("prompt") or self.body["messages"][-1]["content"]


@dataclass(frozen=True)
class Reply:
    """What goes back. `cut_at`: so many bytes of the body, then the connection ends; `hangs`: nothing, until the
    client leaves."""

    status: int = 200
    body: dict[str, Any] | bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut_at: int | None = None
    hangs: bool = False

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


NO_SUCH_PATH = Reply(404, {"detail": "Not Found"})
Script = Callable[[Call], Reply]


def answer(call: Call, text: str | None = None, **changes: Any) -> Reply:
    """A proper answer: 3 to 42 words by the prompt's bytes, within the limit. `changes` replace fields of the body."""
    natural = 3 + sum(call.prompt.encode()) % 40
    num = min(natural, call.body.get("max_tokens") or call.body["max_completion_tokens"])
    text = " ".join(["word"] * num) if text is None else text
    reason = "length" if num < natural else "stop"
    choice: dict[str, Any] = {"index": 0, "finish_reason": reason}
    choice |= {"message": {"role": "assistant", "content": text}} if "messages" in call.body else {"text": text}
    usage = {"prompt_tokens": len(call.prompt.split()), "completion_tokens": num}
    usage["total_tokens"] = sum(usage.values())
    return Reply(body={"id": "x", "model": MODEL, "choices": [choice], "usage": usage} | changes)


def refusal(status: int, message: str, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {"error": {"message": message, "type": "error", "code": None}}, named)


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class ScriptedServer:
    """Serves until the block ends. `models` None: it has no list of models. `calls` are the POSTs in order; `running`
    and `most_running` count those that are being answered; `left` those whose client went away."""

    def __init__(self, script: Script = answer, models: list[str] | None = None, port: int = 0) -> None:
        self.script = script
        self.models_reply = Reply(
            body={"object": "list", "data": [{"id": name} for name in ([MODEL] if models is None else models)]}
        )
        self.calls: list[Call] = []
        self.num_gets = self.num_replies = self.running = self.most_running = self.left = 0
        self._attempts: dict[str, int] = {}
        self._port = port
        self._connections: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        listening = asyncio.start_server(self._serve, "127.0.0.1", self._port, backlog=1024)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result()
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *error: object) -> None:
        self.die()

    def die(self) -> None:
        """Be gone at once, with all connections; may be called twice."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut_all(self) -> None:
        """End all connections at once, and go on."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result()

    async def _cut(self) -> None:
        for writer in self._connections:
            writer.transport.abort()

    async def _end(self) -> None:
        self._server.close()
        await self._cut()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while await self._serve_one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client left, or the server dies
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        start, *lines = head.split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = start.split(" ")
        if method == "GET":
            self.num_gets += 1
            reply = self.models_reply if path == "/v1/models" else NO_SUCH_PATH
            return await self._reply(reply, reader, writer)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._answer(self._call(method, path, headers, content), reader, writer)
        finally:
            self.running -= 1

    def _call(self, method: str, path: str, headers: dict[str, str], content: bytes) -> Call:
        body = json.loads(content)
        prompt = str(body.get("prompt") or body.get("messages"))
        self._attempts[prompt] = self._attempts.get(prompt, 0) + 1
        number, attempt = len(self.calls) + 1, self._attempts[prompt]
        call = Call(method, path, headers, body, number, attempt, time.monotonic())
        self.calls.append(call)
        return call

    async def _answer(self, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        is_known = call.path in ("/v1/chat/completions", "/v1/completions")
        return await self._reply(self.script(call) if is_known else NO_SUCH_PATH, reader, writer)

    async def _reply(self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if reply.delay_s:
            await asyncio.sleep(reply.delay_s)
        if reply.hangs:
            has_left = await reader.read(1) == b""
            self.left += has_left
            return False
        return await self._write(writer, reply)

    async def _write(self, writer: asyncio.StreamWriter, reply: Reply) -> bool:
        headers = {"content-type": "application/json", "content-length": str(len(reply.content)), **reply.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {reply.status} OK\r\n{head}\r\n".encode() + reply.content[: reply.cut_at])
        await writer.drain()
        self.num_replies += 1
        return reply.cut_at is None
