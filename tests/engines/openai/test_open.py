"""What is wrong with servers, keys and names is said before any work, with a way out."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading

import pytest

from lengthwise.engines.openai import ServerOptions, open_openai
from lengthwise.engines.openai.client import Client
from lengthwise.engines.openai.open import check_servers
from lengthwise.errors import ModelError, UsageError
from lengthwise.types import Request
from tests.engines.openai.runs import run
from tests.engines.openai.server import Call, Reply, ScriptedServer, answer, free_port, refusal

KEY = "sk-proj-A1b2C3d4E5f6G7h8I9j0"


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def opened(*urls: str, **options) -> str:
    """The identity of an engine that could be opened; it is closed again."""
    before = threading.active_count()
    try:
        engine = open_openai(ServerOptions(urls, **{"timeout_s": 5.0, "connect_timeout_s": 2.0, **options}))
        engine.close()
        return engine.model
    finally:
        assert threading.active_count() == before, "a thread is left"


def test_the_model_that_is_served_is_taken():
    """Without a name the only one; with one, it must be listed. The URL is no part of the identity."""
    with ScriptedServer() as server:
        assert opened(server.url) == opened(server.url + "/", model="toy") == "served:toy"
        assert server.calls == []  # nothing was asked of the model


def test_it_answers_and_describes_itself():
    """What `open_openai` gives is an engine that works."""
    with ScriptedServer() as server:
        engine = open_openai(ServerOptions((server.url,), concurrency=3))
        assert run(engine, [Request("r", "Hi")])["r"].error is None
        assert engine.description == f"toy on {server.url}; 3 requests at once."
        engine.close()


@pytest.mark.parametrize(
    ("reply", "said"),
    [(refusal(429, "Slow down"), "429: Slow down"), (Reply(500, b"Oops"), "500: Oops"), (Reply(404), "404: nothing")],
)
def test_a_list_that_can_t_be_had_is_told(reply, said):
    """Without a name: why there is no list, and what to give."""
    with ScriptedServer() as server:
        server.models_reply = reply
        with pytest.raises(ModelError, match=rf"does not list its models \(.*{said}.*\); name the model .*--model"):
            opened(server.url)


@pytest.mark.parametrize(
    ("scheme", "reply", "said"),
    [("https", b"HTTP/1.1 400 Bad Request\r\n\r\n", "http:// only"), ("http", b"", "https://")],
)
def test_the_wrong_scheme_is_guessed_at(scheme, reply, said):
    """Plain text where TLS is wanted, or the other way round: the most frequent slip after /v1."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(reply)

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(ModelError, match=f"Perhaps it takes {said}"):
            asyncio.run(check(f"{scheme}://127.0.0.1:{listening.getsockname()[1]}/v1"))


async def check(url: str) -> None:
    options = ServerOptions((url,), "toy", timeout_s=5.0)
    client = Client(None, options)
    try:
        await check_servers(client, options)
    finally:
        await client.close()


def test_another_model_is_refused_with_the_names_that_there_are():
    """Twelve names: ten are shown. The server's own sentence is there, too."""

    def script(call: Call) -> Reply:
        return refusal(404, "The model `nope` does not exist.")

    with ScriptedServer(script, models=[f"m{i}" for i in range(12)]) as server:
        with pytest.raises(ModelError, match=r"does not serve 'nope'; it serves 'm0', .* and 2 more.*does not exist"):
            opened(server.url, model="nope")
        with pytest.raises(ModelError, match=r"serves 'm0', .*--model"):
            opened(server.url)


def test_a_name_that_is_not_listed_may_be_served_for_all_that():
    """One token tells: aliases, and servers whose list is empty, broken or forbidden."""
    for reply in (Reply(body={"data": []}), Reply(500, b"Oops"), Reply(404), Reply(403), Reply(body=b"[]")):
        with ScriptedServer() as server:
            server.models_reply = reply
            assert opened(server.url, model="alias") == "served:alias"
            assert [call.body["max_tokens"] for call in server.calls] == [1]
            with pytest.raises(ModelError, match="--model"):
                opened(server.url)


def test_a_connection_that_ends_once_says_nothing():
    """Some servers end it after an error, and the next request meets that: it is asked again."""

    def script(call: Call) -> Reply:
        return answer(call) if call.number > 1 else Reply(cut_at=0, body=b"{}")

    with ScriptedServer(script, models=[]) as server:
        assert opened(server.url, model="alias") == "served:alias"


def test_a_server_with_completions_only_is_taken():
    """No chat there: the one token is asked for as a completion."""
    with ScriptedServer(lambda call: Reply(404) if "messages" in call.body else answer(call), models=[]) as server:
        assert opened(server.url, model="base") == "served:base"


def test_nobody_there():
    """Refused, no such name: the address, the reason and what to check."""
    url = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(ModelError, match=rf"{url}/models can't be reached: .*Is the server running"):
        opened(url, model="toy")
    with pytest.raises(ModelError, match="can't be reached"):
        opened("http://no-such-host.invalid/v1", model="toy")


def test_a_silent_server():
    """It takes the connection and says nothing: that is told after the timeout."""
    with ScriptedServer() as server:
        server.models_reply = Reply(hangs=True)
        with pytest.raises(ModelError, match=r"no answer within 0.2 s"):
            opened(server.url, model="toy", timeout_s=0.2)


@pytest.mark.parametrize("status", [200, 404])
def test_a_website_is_no_api(status):
    """HTML where an API should be."""
    page = Reply(status, b"<!doctype html><html>Welcome</html>", {"content-type": "text/html"})
    with ScriptedServer(lambda call: page) as server:
        server.models_reply = page
        with pytest.raises(ModelError, match=r"no OpenAI-compatible API: .*HTML.*mostly with /v1"):
            opened(server.url, model="toy")


def test_a_forgotten_v1_is_named():
    """The most frequent slip has its own sentence."""
    with ScriptedServer() as server, pytest.raises(ModelError, match=rf"The API is at {server.root}/v1"):
        opened(server.root, model="toy")


def test_a_server_that_is_not_ready():
    """503 while a model is being loaded: the server's sentence, and no engine."""
    with ScriptedServer() as server:
        server.models_reply = refusal(503, "Loading model")
        with pytest.raises(ModelError, match="Loading model"):
            opened(server.url, model="toy")


def test_keys_come_from_the_environment(monkeypatch, caplog):
    """OPENAI_API_KEY where it is set, another by name; one that is asked for and missing is an error. No key stands in
    a log, an error or a `repr`."""
    caplog.set_level(logging.DEBUG)

    def script(call: Call) -> Reply:
        is_right = call.headers.get("authorization") == f"Bearer {KEY}"
        return answer(call) if is_right else refusal(401, f"Wrong key: {call.headers.get('authorization')}")

    with ScriptedServer(script) as server:
        server.models_reply = Reply(404)
        with pytest.raises(UsageError, match="Check the key"):
            opened(server.url, model="toy")
        monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
        assert opened(server.url, model="toy") == "served:toy"
        with pytest.raises(UsageError, match="MY_KEY is not set"):
            opened(server.url, model="toy", api_key_env="MY_KEY")
        monkeypatch.setenv("MY_KEY", KEY[::-1])
        with pytest.raises(UsageError, match=r"Wrong key: Bearer \[key\]") as caught:
            opened(server.url, model="toy", api_key_env="MY_KEY")
    said = f"{caught.value!r} {caplog.text}"
    assert KEY not in said
    assert KEY[::-1] not in said


def test_a_wrong_key_is_said_by_the_list_of_models(monkeypatch):
    """401 there: which variable is wrong, or that one is wanted."""
    with ScriptedServer() as server:
        server.models_reply = refusal(401, "Invalid key")
        with pytest.raises(UsageError, match="it wants a key; set OPENAI_API_KEY"):
            opened(server.url)
        monkeypatch.setenv("MY_KEY", KEY)
        with pytest.raises(UsageError, match="the key in MY_KEY is not taken"):
            opened(server.url, api_key_env="MY_KEY")


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_what_can_t_be_a_key_is_refused_and_not_told(monkeypatch, key):
    """It can't stand in a header; the error doesn't show it."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UsageError, match="can't be a key") as caught:
        opened("http://127.0.0.1:9/v1", model="toy")
    assert key not in str(caught.value)


def test_of_several_servers_one_may_be_away(caplog):
    """It is said, and taken in when it comes; one that serves another model is refused."""
    with ScriptedServer() as server, ScriptedServer(lambda call: Reply(404), models=["other"]) as other:
        away = f"http://127.0.0.1:{free_port()}/v1"
        assert opened(away, server.url) == "served:toy"
        assert f"{away}/models can't be reached" in caplog.text
        with pytest.raises(ModelError, match="does not serve 'toy'"):
            opened(server.url, other.url)
