"""Options → an engine that is ready: before any work, the servers are there, take the key and serve the model."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lengthwise.engines.openai.answer import NoAnswer, read_answer
from lengthwise.engines.openai.body import CHAT, COMPLETIONS
from lengthwise.engines.openai.client import Client
from lengthwise.engines.openai.concurrency import MAX_FOUND
from lengthwise.engines.openai.engine import OpenAIEngine
from lengthwise.engines.openai.faults import Fault
from lengthwise.engines.openai.options import DEFAULT_KEY_ENV, ServerOptions
from lengthwise.engines.openai.thread import LoopThread
from lengthwise.errors import ModelError, UsageError

log = logging.getLogger("lengthwise")

MAX_SHOWN_NAMES = 10
NUM_TRIES = 3  # some servers end the connection after an error, and the next request meets that
SPARE_FILES = 256  # descriptors for everything that is no connection


def open_openai(options: ServerOptions) -> OpenAIEngine:
    """Look whether the servers are what they should be, and open an engine for them.

    The key is read from the environment here and nowhere else. Raises ModelError or UsageError: no server there, no
    such API, another model, a wrong key. Of several servers one that is away is passed over, which is said.
    """
    client = Client(read_key(options), options)
    thread = LoopThread("lengthwise-openai")
    try:
        model = thread.run(check_servers(client, options))
        return OpenAIEngine(options, model, client, thread, max_concurrency=max_connections())
    except BaseException:
        thread.run(client.close())
        thread.close()
        raise


def read_key(options: ServerOptions) -> str | None:
    """The key by the environment. Raises UsageError for one that was asked for and is not there."""
    name = options.api_key_env or DEFAULT_KEY_ENV
    key = os.environ.get(name, "").strip()
    if not key and options.api_key_env is not None:
        raise UsageError(f"The environment variable {name} is not set or empty; it should hold the servers' key.")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UsageError(f"What {name} holds can't be a key: it has spaces, line breaks or letters beyond ASCII.")
    return key or None


def max_connections() -> int:
    """Connections that this process may have, as far as the system tells."""
    if sys.platform == "win32":
        return MAX_FOUND
    import resource

    num_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_FOUND if num_files < 0 else max(1, min(MAX_FOUND, num_files - SPARE_FILES))


async def check_servers(client: Client, options: ServerOptions) -> str:
    """The name of the model that all servers serve. Raises ModelError or UsageError."""
    model = options.model
    away: list[Fault] = []
    for url in options.urls:
        listed = await client.get(f"{url}/models")
        if isinstance(listed, Fault) and not listed.is_from_server and listed.kind != "invalid":
            away.append(listed)
            continue
        _refuse_key(listed, url, options)
        names = _names(listed)
        model = model or _only_one(names, url, listed)
        if model not in (names or ()):
            await _try_model(client, url, model, names, options)
    if len(away) == len(options.urls):
        raise ModelError(f"{away[0].sentence} {_way_out(away[0], options.urls[0])}")
    for fault in away:
        log.warning("%s Beginning without it.", fault.sentence)
    assert model is not None, "a server that answered has named it"
    return model


def _refuse_key(got: bytes | Fault, url: str, options: ServerOptions) -> None:
    if isinstance(got, Fault) and got.status == 401:
        name = options.api_key_env or DEFAULT_KEY_ENV
        way_out = f"the key in {name} is not taken" if os.environ.get(name) else f"it wants a key; set {name}"
        raise UsageError(f"{url}: {way_out}. {got.message}")


def _names(listed: bytes | Fault) -> list[str] | None:
    """The models that a server lists; None where it lists none (no such path, no JSON, no rights)."""
    if isinstance(listed, Fault):
        return None
    try:
        body: Any = json.loads(listed)
    except (ValueError, RecursionError):
        return None
    rows = body.get("data") if isinstance(body, Mapping) else None
    if not isinstance(rows, list):
        return None
    return [row["id"] for row in rows if isinstance(row, Mapping) and isinstance(row.get("id"), str)]


def _way_out(fault: Fault, url: str) -> str:
    if url.startswith("http://") and fault.kind == "cut":
        return "Perhaps it takes https:// only."
    if url.startswith("https://") and "SSL" in fault.message:
        return "Perhaps it takes http:// only, or its certificate is not known here (SSL_CERT_FILE)."
    return "Is the server running, and is the base URL right?"


def _only_one(names: Sequence[str] | None, url: str, listed: bytes | Fault) -> str:
    if not names:
        why = f" ({listed.sentence})" if isinstance(listed, Fault) else ""
        raise ModelError(f"{url} does not list its models{why}; name the model to use (--model).")
    if len(names) > 1:
        raise ModelError(f"{url} serves {_some(names)}; name the model to use (--model).")
    return names[0]


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:MAX_SHOWN_NAMES])
    return shown if len(names) <= MAX_SHOWN_NAMES else f"{shown} and {len(names) - MAX_SHOWN_NAMES} more"


async def _try_model(client: Client, url: str, model: str, names: Sequence[str] | None, options: ServerOptions) -> None:
    """A model that is not listed may be served for all that: some servers list nothing, or take other names, too. One
    token tells. Raises ModelError, or UsageError for a wrong key."""
    fault = await _fault_of_one_token(client, url, {"model": model, options.max_tokens_field: 1})
    if fault is None or fault.kind in ("limited", "timeout"):
        return log.info("%s does not list %r and serves it.", url, model)
    if fault.kind in ("access", "forbidden"):
        raise UsageError(f"{url}: {fault.sentence} Check the key and the account.")
    if names is not None and fault.is_request_to_blame:
        raise ModelError(f"{url} does not serve {model!r}; it serves {_some(names) or 'nothing'}. {fault.message}")
    is_elsewhere = fault.kind in ("unknown", "invalid") or (fault.status or 0) // 100 == 3
    if is_elsewhere and repr(model)[1:-1] not in fault.message:
        raise ModelError(await _wrong_url(client, url, fault))
    raise ModelError(f"{url} can't answer with {model!r}. {fault.message}")


async def _fault_of_one_token(client: Client, url: str, body: dict[str, Any]) -> Fault | None:
    """What is wrong with an answer of one token, as chat, or where there is no chat as completion; None: nothing."""
    fault = await _fault_of_post(client, url + CHAT, {**body, "messages": [{"role": "user", "content": "."}]})
    if fault is not None and fault.kind == "unknown":
        raw = await _fault_of_post(client, url + COMPLETIONS, {**body, "prompt": "."})
        return fault if raw is not None and raw.kind == "unknown" else raw
    return fault


async def _fault_of_post(client: Client, url: str, body: dict[str, Any]) -> Fault | None:
    for _ in range(NUM_TRIES):
        got = await client.post(url, json.dumps(body).encode())
        if not (isinstance(got, Fault) and got.kind == "cut"):
            break
    if isinstance(got, Fault):
        return got
    try:
        read_answer("", got, 1)
    except NoAnswer as error:
        return client.told(Fault("invalid", str(error)))
    return None


async def _wrong_url(client: Client, url: str, fault: Fault) -> str:
    """A sentence for an address where there is no such API; most often its /v1 is missing."""
    said = f"{url} is no OpenAI-compatible API: {fault.message}"
    if not url.endswith("/v1") and _names(await client.get(f"{url}/v1/models")) is not None:
        return f"{said} The API is at {url}/v1; give that as the base URL."
    return f"{said} A base URL is what stands before /chat/completions, mostly with /v1 at its end."
