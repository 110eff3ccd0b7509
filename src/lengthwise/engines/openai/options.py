"""What can be asked of the engine behind HTTP: which servers, which model, how patient. Loads no HTTP library."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from lengthwise.errors import UsageError

Priority = Literal["none", "lower", "higher"]
MaxTokensField = Literal["max_tokens", "max_completion_tokens"]
DEFAULT_KEY_ENV = "OPENAI_API_KEY"
MAX_CONCURRENCY = 4096  # connections; beyond, file descriptors and the server's sockets end first


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Which servers answer, and how they are asked. Raises UsageError on a value out of range.

    The key is no part of it: it stands in the environment only, under the name `api_key_env`.
    """

    base_urls: tuple[str, ...]
    """Where the API begins, mostly with /v1 at the end: several servers that serve the same model."""
    model: str | None = None
    """The name that the servers know it by; None: the one that they serve, if it is only one."""
    api_key_env: str | None = None
    """The environment variable that holds the key; None: OPENAI_API_KEY, and no key where that is not set."""
    concurrency: int | None = None
    """Requests at once, over all servers; None: found while running, from throughput."""
    max_tokens: int = 512
    """Limit of answers whose request gives none; the paper's setting (at most 512 new tokens)."""
    max_tokens_field: MaxTokensField = "max_tokens"
    """What the limit is called: OpenAI's reasoning models take only `max_completion_tokens`."""
    priority: Priority = "none"
    """Which way the servers' `priority` field runs: vLLM and SGLang `lower` is sooner, Dynamo `higher`; none: it is
    not sent, since a server that does not know it may refuse the request."""
    timeout_s: float = 600.0
    """The longest that one answer may take; the OpenAI client's own limit."""
    connect_timeout_s: float = 10.0
    """A server that is there takes a connection in milliseconds, around the world in one second."""
    max_retries: int = 6
    """Tries of one request after the first, where the server is to blame; with doubled delays half a minute."""
    patience_s: float = 300.0
    """How long nothing may succeed before the run ends: a server's restart with a large model takes minutes."""

    def __post_init__(self) -> None:
        _check_urls(self.base_urls)
        if self.concurrency is not None and not 1 <= self.concurrency <= MAX_CONCURRENCY:
            raise UsageError(
                f"concurrency is {self.concurrency}; it must be from 1 to {MAX_CONCURRENCY}, or left out to be found."
            )
        _check_one_of("max_tokens_field", self.max_tokens_field, ("max_tokens", "max_completion_tokens"))
        _check_one_of("priority", self.priority, ("none", "lower", "higher"))
        for name, least in (("max_tokens", 1), ("max_retries", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be {least} or more.")
        for name in ("timeout_s", "connect_timeout_s", "patience_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be a number above 0.")

    @property
    def urls(self) -> tuple[str, ...]:
        """The base URLs without slashes at their ends."""
        return tuple(url.rstrip("/") for url in self.base_urls)

    @property
    def is_lower_priority_sooner(self) -> bool | None:
        return None if self.priority == "none" else self.priority == "lower"


def _check_urls(base_urls: tuple[str, ...]) -> None:
    if not base_urls:
        raise UsageError("No base URL is given; the engine needs a server or more, like http://localhost:8000/v1.")
    for url in base_urls:
        _check_url(url)
    if len({url.rstrip("/") for url in base_urls}) < len(base_urls):
        raise UsageError(f"A base URL is given twice: {', '.join(base_urls)}. Give each server once.")


def _check_one_of(name: str, value: str, wanted: tuple[str, ...]) -> None:
    if value not in wanted:
        raise UsageError(f"{name} is {value!r}; it must be {' or '.join(wanted)}.")


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, is_address = urlsplit(""), False
    if "@" in url:  # before anything that shows the URL
        raise UsageError(
            f"The base URL of {parts.hostname or 'a server'} holds a user name or a password, which would stand in "
            "logs and in your shell's history; put the key into the environment (OPENAI_API_KEY, or --api-key-env)."
        )
    if not is_address or not url.isprintable() or " " in url:
        raise UsageError(f"The base URL {url!r} is no address of a server; it looks like http://localhost:8000/v1.")
    if parts.query or parts.fragment:
        raise UsageError(
            f"The base URL of {parts.hostname} goes on with ? or #; paths are added to its end, so leave that out."
        )
    for ending in ("/chat/completions", "/completions", "/models"):
        if parts.path.rstrip("/").endswith(ending):
            raise UsageError(f"The base URL {url!r} must end before {ending}, which is added to it.")
