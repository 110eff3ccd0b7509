"""One POST or GET: what is sent, what comes back, and every way in which that goes wrong, told as a Fault."""

from __future__ import annotations

import asyncio
import time
from functools import lru_cache

import httpx2

from lengthwise.engines.openai.faults import Fault, fault_of
from lengthwise.engines.openai.options import ServerOptions
from lengthwise.engines.openai.redact import Redactor
from lengthwise.errors import first_line

# Servers close a connection that idles for some seconds (uvicorn: 5), and a request that meets that is lost.
KEEPALIVE_S = 2.0
QUICK_S = 30.0  # for what no model is asked for: a list of models
_parsed = lru_cache(maxsize=256)(httpx2.URL)  # 40 µs of the 800 that a request takes
_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEEPALIVE_S)

# Where a connection can't be had at all; the request has not been seen by anybody.
_UNREACHABLE = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, httpx2.UnsupportedProtocol)


class Client:
    """Bodies in, bodies out; safe to call many times at once, from one event loop.

    Each running request has an `httpx2.AsyncClient` to itself, which is used again: one client for all looks through
    its connections for each request (2.9 ms of processor at 512, against 0.7). The key is in their headers and nowhere
    else.
    """

    def __init__(self, key: str | None, options: ServerOptions) -> None:
        self.redactor = Redactor(key)
        self._headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        self._timeout = httpx2.Timeout(None, connect=options.connect_timeout_s)
        self._timeout_s = options.timeout_s
        self._ssl = httpx2.create_ssl_context()  # one for all clients, since it takes 20 ms to make
        self._idle: list[httpx2.AsyncClient] = []

    async def post(self, url: str, content: bytes) -> bytes | Fault:
        """The body of a 200, or what went wrong. A body is whole or not there: no part of an answer is ever used, so
        any try may be followed by another."""
        return await self._send("POST", url, content, self._timeout_s)

    async def get(self, url: str) -> bytes | Fault:
        return await self._send("GET", url, None, min(QUICK_S, self._timeout_s))

    async def close(self) -> None:
        await asyncio.gather(*(client.aclose() for client in self._idle))
        self._idle.clear()

    async def _send(self, method: str, url: str, content: bytes | None, timeout_s: float) -> bytes | Fault:
        client = self._idle.pop() if self._idle else self._new_client()
        try:
            return await self._try(client, method, url, content, timeout_s)
        finally:
            self._idle.append(client)

    async def _try(
        self, client: httpx2.AsyncClient, method: str, url: str, content: bytes | None, timeout_s: float
    ) -> bytes | Fault:
        try:
            async with asyncio.timeout(timeout_s):
                response = await client.request(method, _parsed(url), content=content)
        except (TimeoutError, httpx2.HTTPError) as error:
            return self._fault(error, url, timeout_s)
        fault = fault_of(response.status_code, response.headers, response.content, time.time())
        if fault is None:
            return self.redactor.body(response.content)
        return self.told(fault)

    def _fault(self, error: TimeoutError | httpx2.HTTPError, url: str, timeout_s: float) -> Fault:
        if isinstance(error, _UNREACHABLE):
            return self.told(Fault("unreachable", f"{url} can't be reached: {_why(error)}."))
        if isinstance(error, (TimeoutError, httpx2.TimeoutException)):
            return Fault("timeout", f"{url} gave no answer within {timeout_s:g} s.")
        if isinstance(error, httpx2.DecodingError):
            return self.told(Fault("invalid", f"What {url} answered can't be unpacked: {_why(error)}."))
        return self.told(Fault("cut", f"{url} broke the connection off: {_why(error)}."))

    def told(self, fault: Fault) -> Fault:
        """A fault as it may be said: without the key, shortened."""
        return Fault(fault.kind, self.redactor.text(fault.message), fault.status, fault.retry_after_s, fault.code)

    def _new_client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(headers=self._headers, timeout=self._timeout, limits=_LIMITS, verify=self._ssl)


def _why(error: Exception) -> str:
    return first_line(error).rstrip(".")
