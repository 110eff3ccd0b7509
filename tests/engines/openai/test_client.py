"""One request and what may happen to it on its way: kept connections, endless bodies, an unusable environment."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from lengthwise.engines.openai import client as module
from lengthwise.engines.openai.client import Client
from lengthwise.engines.openai.faults import Fault
from lengthwise.engines.openai.options import ServerOptions
from lengthwise.errors import UsageError

BODY = b"{}"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@contextmanager
def connections(*scripts: list[bytes]) -> Iterator[tuple[str, list[int]]]:
    """A server whose n-th connection answers its requests by the n-th script, and then closes; b"" is no answer. Gives
    its URL and how many requests each connection had."""
    counts: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for script in scripts:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, connection.makefile("rb") as asked, suppress(ConnectionError):
                    counts.append(0)
                    for reply in script:
                        while asked.readline().strip():
                            pass
                        if not asked.read(len(BODY)):
                            break
                        counts[-1] += 1
                        connection.sendall(reply)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/x", counts
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(5.0)


def posts(url: str, num: int, **options: float) -> list[bytes | Fault]:
    """What comes of so many POSTs, one after the other."""

    async def run() -> list[bytes | Fault]:
        client = Client(None, ServerOptions((url,), **{"timeout_s": 10.0, **options}))
        got = [await client.post(url, BODY) for _ in range(num)]
        await client.close()
        return got

    return asyncio.run(run())


def test_a_kept_connection_that_has_ended_says_nothing():
    """The server closes each connection at its second request, without a word: all are answered, with no fault."""
    with connections(*[[OK, b""]] * 3) as (url, counts):
        assert posts(url, 3) == [b"{}"] * 3
        assert counts == [2, 2, 1]


def test_a_new_connection_that_ends_is_a_fault():
    """A server that closes at the first request gets it once."""
    with connections([b""], [b""]) as (url, counts):
        fault = posts(url, 1)[0]
        assert isinstance(fault, Fault)
        assert fault.kind == "cut"
        assert counts == [1]


def test_a_kept_connection_that_ends_within_an_answer_is_a_fault():
    """Something had come back, so it was no idle connection: not asked again here."""
    with connections([OK, b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"], [OK]) as (url, counts):
        first, second = posts(url, 2)
        assert first == b"{}"
        assert isinstance(second, Fault)
        assert second.kind == "cut"
        assert counts[:1] == [2]


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_body_has_a_bound(monkeypatch, is_packed):
    """A body that never ends, and one that is small until it is unpacked, are left: `invalid`, not all of memory."""
    monkeypatch.setattr(module, "MAX_BODY_BYTES", 2**20)
    body = gzip.compress(b" " * 2**22) if is_packed else b" " * 2**22
    head = b"HTTP/1.1 200 OK\r\n" + (b"content-encoding: gzip\r\n" if is_packed else b"") + b"connection: close\r\n\r\n"
    with connections([head + body]) as (url, _):
        fault = posts(url, 1)[0]
    assert isinstance(fault, Fault)
    assert fault.kind == "invalid"
    assert "more than 1 MiB" in fault.message


@pytest.mark.parametrize(
    ("name", "value"), [("ALL_PROXY", "nonsense://127.0.0.1:1"), ("SSL_CERT_FILE", "/no/such/file.pem")]
)
def test_an_environment_that_can_t_be_used_is_said(monkeypatch, name, value):
    """A proxy of an unknown kind, certificates that are not there: a UsageError that names where to look."""
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=name):
        Client(None, ServerOptions(("http://localhost/v1",)))


def test_what_is_not_used_is_closed(monkeypatch):
    """After ten that ran at once, one that runs alone closes one of those that idle each time."""
    monkeypatch.setattr(module, "IDLE_S", 0.0)

    async def run(url: str) -> int:
        client = Client(None, ServerOptions((url,), timeout_s=10.0))
        await asyncio.gather(*(client.post(url, BODY) for _ in range(10)))
        for _ in range(20):
            await client.post(url, BODY)
        num = len(client._idle)
        await client.close()
        return num

    with connections() as (url, _):
        pass  # nobody is there any more: each is refused
    assert asyncio.run(run(url)) <= 1
