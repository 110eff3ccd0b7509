"""What a server says may go into logs, errors and answers; the key may not, even where the server repeats it."""

from __future__ import annotations

import re

MAX_SHOWN_CHARACTERS = 300  # of a server's message: a sentence or two, and no page of HTML
HIDDEN = "[key]"
_LONG_KEY = 8  # a shorter one may be a word ("EMPTY"), and is looked for as a whole word only
_PREFIX = 12  # servers like to repeat a key's beginning; "sk-proj-" alone says nothing


class Redactor:
    """Takes `key` out of texts. Its `repr` doesn't hold it."""

    def __init__(self, key: str | None) -> None:
        self._pattern = None if key is None else re.compile(_pattern(key))
        self._key = key.encode() if key is not None and len(key) >= _LONG_KEY else None

    def body(self, content: bytes) -> bytes:
        """A response body without the key, as long as this is no mere word."""
        if self._key is None or self._key not in content:
            return content
        return content.replace(self._key, HIDDEN.encode())

    def text(self, text: str) -> str:
        """One line for people, without the key, shortened."""
        hidden = text if self._pattern is None else self._pattern.sub(HIDDEN, text)
        line = " ".join("".join(c if c.isprintable() else " " for c in hidden[: 20 * MAX_SHOWN_CHARACTERS]).split())
        return line if len(line) <= MAX_SHOWN_CHARACTERS else f"{line[:MAX_SHOWN_CHARACTERS]}…"


def _pattern(key: str) -> str:
    whole = re.escape(key)
    if len(key) < _LONG_KEY:
        return rf"(?<![\w-]){whole}(?![\w-])"
    if len(key) < 2 * _PREFIX:
        return whole
    return rf"{whole}|{re.escape(key[:_PREFIX])}[^\s\"'<>,;]*"
