"""One POST or GET: what is sent, what comes back, and every way in which that goes wrong, told as a Fault."""

from __future__ import annotations

import asyncio
import copy
import time
from collections import deque
from functools import lru_cache
from typing import Any

import httpx2

from lengthwise.engines.openai.faults import Fault, fault_of
from lengthwise.engines.openai.options import ServerOptions
from lengthwise.engines.openai.redact import Redactor
from lengthwise.errors import UsageError, first_line

# Servers close a connection that idles for some seconds (uvicorn: 5), and a request that meets that is lost.
KEEPALIVE_S = 1.0
IDLE_S = 10.0  # then what was not used again is closed
MAX_BODY_BYTES = 256 * 2**20  # unpacked; the longest answer with the probabilities of all its tokens is a tenth of it
QUICK_S = 30.0  # for what no model is asked for: a list of models
_parsed = lru_cache(maxsize=256)(httpx2.URL)  # 40 µs of the 800 that a request takes
_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEEPALIVE_S)

# Where a connection can't be had at all; the request has not been seen by anybody.
_UNREACHABLE = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, httpx2.UnsupportedProtocol)
_CUT = (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError)


class _TooLong(Exception):
    """A body is longer than any answer."""


class _Watch:
    """Told by httpx2 what it does for a request: whether that had to open a connection."""

    def __init__(self) -> None:
        self.is_new_connection = False

    async def __call__(self, name: str, info: dict[str, Any]) -> None:
        self.is_new_connection |= name.startswith("connection.connect")


class Client:
    """Bodies in, bodies out; safe to call many times at once, from one event loop.

    Each running request has an `httpx2.AsyncClient` to itself, which is used again: one client for all looks through
    its connections for each request (2.9 ms of processor at 512, against 0.7). The key is in their headers and nowhere
    else. Raises UsageError where the environment names proxies or certificates that can't be used.
    """

    def __init__(self, key: str | None, options: ServerOptions) -> None:
        self.redactor = Redactor(key)
        self._headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        self._timeout = httpx2.Timeout(None, connect=options.connect_timeout_s)
        self._timeout_s = options.timeout_s
        try:
            self._ssl = httpx2.create_ssl_context()  # one for all clients, since it takes 20 ms to make
            self._idle = deque([(self._new_client(), time.monotonic())])
            for url in options.urls:
                _parsed(url)
        except (OSError, ImportError, ValueError, httpx2.InvalidURL) as error:
            raise UsageError(
                f"No connection can be made: {_why(error)}. Look at the base URL and at what the environment says of "
                "proxies (ALL_PROXY, HTTPS_PROXY, HTTP_PROXY) and certificates (SSL_CERT_FILE, SSL_CERT_DIR)."
            ) from error

    def another(self) -> Client:
        """One with the same key and settings, for another event loop."""
        other = copy.copy(self)
        other._idle = deque([(self._new_client(), time.monotonic())])
        return other

    async def post(self, url: str, content: bytes) -> bytes | Fault:
        """The body of a 200, or what went wrong. A body is whole or not there: no part of an answer is ever used, so
        any try may be followed by another."""
        return await self._send("POST", url, content, self._timeout_s)

    async def get(self, url: str) -> bytes | Fault:
        return await self._send("GET", url, None, min(QUICK_S, self._timeout_s))

    async def close(self) -> None:
        await asyncio.gather(*(client.aclose() for client, _ in self._idle))
        self._idle.clear()

    async def _send(self, method: str, url: str, content: bytes | None, timeout_s: float) -> bytes | Fault:
        client = self._idle.pop()[0] if self._idle else self._new_client()
        try:
            return await self._try(client, method, url, content, timeout_s)
        finally:
            self._idle.append((client, time.monotonic()))
            if self._idle[0][1] < time.monotonic() - IDLE_S:
                await self._idle.popleft()[0].aclose()

    async def _try(
        self, client: httpx2.AsyncClient, method: str, url: str, content: bytes | None, timeout_s: float
    ) -> bytes | Fault:
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._respond(client, method, _parsed(url), content)
                body = await _read(response)
        except (TimeoutError, httpx2.HTTPError, _TooLong) as error:
            return self._fault(error, url, timeout_s)
        fault = fault_of(response.status_code, response.headers, body, time.time())
        return self.redactor.body(body) if fault is None else self.told(fault)

    async def _respond(
        self, client: httpx2.AsyncClient, method: str, url: httpx2.URL, content: bytes | None
    ) -> httpx2.Response:
        """The head of a response. A kept connection that ends before it was most likely closed by the server meanwhile,
        which says nothing of the server: once more on a new one."""
        watch = _Watch()
        request = client.build_request(method, url, content=content, extensions={"trace": watch})
        try:
            return await client.send(request, stream=True)
        except _CUT:
            if watch.is_new_connection:
                raise
        return await client.send(client.build_request(method, url, content=content), stream=True)

    def _fault(self, error: Exception, url: str, timeout_s: float) -> Fault:
        if isinstance(error, _UNREACHABLE):
            return self.told(Fault("unreachable", f"{url} can't be reached: {_why(error)}."))
        if isinstance(error, (TimeoutError, httpx2.TimeoutException)):
            return Fault("timeout", f"{url} gave no answer within {timeout_s:g} s.")
        if isinstance(error, _TooLong):
            return Fault("invalid", f"{url} answered with more than {MAX_BODY_BYTES // 2**20} MiB.")
        if isinstance(error, httpx2.DecodingError):
            return self.told(Fault("invalid", f"What {url} answered can't be unpacked: {_why(error)}."))
        return self.told(Fault("cut", f"{url} broke the connection off: {_why(error)}."))

    def told(self, fault: Fault) -> Fault:
        """A fault as it may be said: without the key, shortened."""
        return Fault(fault.kind, self.redactor.text(fault.message), fault.status, fault.retry_after_s, fault.code)

    def _new_client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(headers=self._headers, timeout=self._timeout, limits=_LIMITS, verify=self._ssl)


async def _read(response: httpx2.Response) -> bytes:
    """The whole body, unpacked. Raises _TooLong."""
    chunks: list[bytes] = []
    left = MAX_BODY_BYTES
    try:
        async for chunk in response.aiter_bytes():
            chunks.append(chunk)
            left -= len(chunk)
            if left < 0:
                raise _TooLong
    finally:
        await response.aclose()
    return b"".join(chunks)


def _why(error: Exception) -> str:
    return first_line(error).rstrip(".")
