"""What can go wrong with one try, sorted by whose fault it is: that decides what is done about it.

| kind          | seen                                                       | what is done                         |
|---------------|------------------------------------------------------------|--------------------------------------|
| `request`     | 400, 409, 413, 422 and other 4xx                           | an error row, at once                |
| `unknown`     | 404, 405                                                   | an error row; many in a row: the end |
| `forbidden`   | 403: an input that a filter refuses, or rights             | an error row; many in a row: the end |
| `access`      | 401, 402, 407, quota used up                               | the end of the run                   |
| `limited`     | 429; 503 with `Retry-After`                                | the server rests; not counted        |
| `unreachable` | no connection                                              | the server rests; not counted        |
| `server`      | other 5xx, 408, 425, 3xx                                   | tried again, counted                 |
| `cut`         | the connection ended before the answer's last byte         | tried again, counted                 |
| `invalid`     | 200 with HTML, broken JSON, no choices                     | tried again, counted                 |
| `timeout`     | nothing came in time                                       | tried again, twice at most           |
"""

from __future__ import annotations

import email.utils
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lengthwise.engines.openai.answer import NoAnswer, is_html, message_of

Kind = Literal[
    "request", "unknown", "forbidden", "access", "limited", "unreachable", "server", "cut", "invalid", "timeout"
]
ERROR_TYPES: dict[Kind, str] = {  # the word in an answer line's `error.type`
    "request": "invalid_request",
    "unknown": "not_found",
    "forbidden": "access_denied",
    "access": "access_denied",
    "limited": "rate_limited",
    "unreachable": "server_error",
    "server": "server_error",
    "cut": "server_error",
    "invalid": "invalid_response",
    "timeout": "timeout",
}
GATEWAY = (502, 503, 504)  # what stands before a server that is down says so
_QUOTA_CODES = ("insufficient_quota", "billing_hard_limit_reached")  # OpenAI: waiting does not help
_MAX_RETRY_AFTER_S = 86_400.0  # a day: the longest limit that anybody counts


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a try gave no answer. `message` is for people and holds no key."""

    kind: Kind
    message: str
    status: int | None = None
    retry_after_s: float | None = None
    code: str | None = None  # the server's own word

    @property
    def is_request_to_blame(self) -> bool:
        return self.kind in ("request", "unknown", "forbidden")

    @property
    def is_server_down(self) -> bool:
        """Nobody is there, or a gateway says so; one such sign may err, several don't."""
        return self.kind in ("unreachable", "cut") or self.status in GATEWAY

    @property
    def is_from_server(self) -> bool:
        """Somebody answered who is more than a gateway."""
        return self.status is not None and self.status not in GATEWAY

    @property
    def sentence(self) -> str:
        """The message with an end, so that another sentence may follow."""
        return self.message if self.message.endswith((".", "!", "?", "…")) else f"{self.message}."

    @property
    def error_type(self) -> str:
        return self.code if self.code == "context_length_exceeded" else ERROR_TYPES[self.kind]


def fault_of(status: int, headers: Mapping[str, str], content: bytes, now_s: float) -> Fault | None:
    """What a response says is wrong, in the server's own words; None for one that may hold an answer. `now_s` is the
    time of day (seconds since 1970)."""
    if status in (200, 201):
        return None
    body = _json_or_none(content)
    code = _code(body)
    retry_after_s = retry_after(headers.get("retry-after"), now_s)
    message = f"The server answered {status}: {_said(status, headers, content, body)}"
    return Fault(_kind(status, code, retry_after_s), message, status, retry_after_s, code)


def fault_in(no_answer: NoAnswer) -> Fault:
    """A 200 without an answer in it; proxies of several providers write a provider's error so, with its status."""
    if isinstance(no_answer.code, int) and 400 <= no_answer.code < 600:
        return Fault(_kind(no_answer.code, None, None), str(no_answer), no_answer.code)
    return Fault("invalid", str(no_answer), 200)


def _kind(status: int, code: str | None, retry_after_s: float | None) -> Kind:
    if status in (401, 402, 407) or code in _QUOTA_CODES:
        return "access"
    if status == 403:
        return "forbidden"
    if status == 429 or (status == 503 and retry_after_s is not None):
        return "limited"
    if status in (404, 405):
        return "unknown"
    return "request" if 400 <= status < 500 and status not in (408, 425) else "server"


def retry_after(value: str | None, now_s: float) -> float | None:
    """Seconds to wait by a `Retry-After` header (RFC 9110: seconds, or a date); None where it says nothing that can be
    used: zero, the past, no number."""
    if value is None:
        return None
    seconds = _seconds_or_none(value)
    if seconds is None:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now_s
        except (ValueError, OverflowError):
            return None
    return min(seconds, _MAX_RETRY_AFTER_S) if 0 < seconds < math.inf else None


def _seconds_or_none(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _json_or_none(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _code(body: object) -> str | None:
    error = body.get("error") if isinstance(body, Mapping) else None
    code = error.get("code") if isinstance(error, Mapping) else None
    return code if isinstance(code, str) else None


def _said(status: int, headers: Mapping[str, str], content: bytes, body: object) -> str:
    if 300 <= status < 400:
        return f"it sends elsewhere, to {headers.get('location', 'nowhere')}."
    if said := message_of(body):
        return said
    if is_html(content):
        return "a page of HTML."
    return content[:1000].decode(errors="replace") or "nothing."
