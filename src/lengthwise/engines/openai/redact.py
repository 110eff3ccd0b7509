"""What a server says may go into logs, errors and answers; the key may not, even where the server repeats it."""

from __future__ import annotations

import json
import re

MAX_SHOWN_CHARACTERS = 300  # of a server's message: a sentence or two, and no page of HTML
HIDDEN = "[key]"
_ESCAPE = re.compile(rb"\\(?:u00([2-7][0-9a-fA-F])|.)", re.DOTALL)  # JSON's, pair by pair: "\\u0041" is none
_HAS_HIDING_ESCAPE = re.compile(rb"\\(?:u00[2-7]|/)")
_LONG_KEY = 8  # a shorter one may be a word ("EMPTY"), and is looked for as a whole word only
_PREFIX = 12  # servers like to repeat a key's beginning; "sk-proj-" alone says nothing


class Redactor:
    """Takes `key` out of texts. Its `repr` doesn't hold it."""

    def __init__(self, key: str | None) -> None:
        self._pattern = None if key is None else re.compile(_pattern(key))
        self._in_body = re.compile(_pattern(json.dumps(key)[1:-1]).encode()) if _is_long(key) else None

    def body(self, content: bytes) -> bytes:
        """A response body without the key, as long as this is no mere word; also where JSON writes it in escapes."""
        if self._in_body is None:
            return content
        if _HAS_HIDING_ESCAPE.search(content):
            content = _ESCAPE.sub(_unescaped, content)
        return self._in_body.sub(HIDDEN.encode(), content)

    def text(self, text: str) -> str:
        """One line for people, without the key, shortened."""
        hidden = text if self._pattern is None else self._pattern.sub(HIDDEN, text)
        line = " ".join("".join(c if c.isprintable() else " " for c in hidden[: 20 * MAX_SHOWN_CHARACTERS]).split())
        return line if len(line) <= MAX_SHOWN_CHARACTERS else f"{line[:MAX_SHOWN_CHARACTERS]}…"


def _is_long(key: str | None) -> bool:
    return key is not None and len(key) >= _LONG_KEY


def _unescaped(escape: re.Match[bytes]) -> bytes:
    """An escape in the one form that `json.dumps` has for it."""
    if escape[1] is not None:
        character = bytes([int(escape[1], 16)])
        return b"\\" + character if character in b'"\\' else character
    return b"/" if escape[0] == b"\\/" else escape[0]


def _pattern(key: str) -> str:
    whole = re.escape(key)
    if len(key) < _LONG_KEY:
        return rf"(?<![\w-]){whole}(?![\w-])"
    if len(key) < 2 * _PREFIX:
        return whole
    return rf"{whole}|{re.escape(key[:_PREFIX])}[^\s\"'<>,;\\]*"
