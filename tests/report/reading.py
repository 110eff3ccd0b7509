"""What a report says, read as a program reads it."""

from __future__ import annotations

import base64
import csv
import io
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path


class Tags(HTMLParser):
    """All tags with their attributes, and the text of the head line."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def tags(page: Path) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(page.read_text())
    return parser.found


def tables(page: Path) -> dict[str, list[list[str]]]:
    """By the name of the figure: what its link to CSV holds."""
    found = {}
    for tag, attributes in tags(page):
        if tag == "a" and "download" in attributes:
            head, _, content = str(attributes["href"]).partition(",")
            assert head == "data:text/csv;charset=utf-8;base64"
            rows = csv.reader(io.StringIO(base64.b64decode(content).decode()))
            found[str(attributes["download"]).removesuffix(".csv")] = list(rows)
    return found


def answer(page: Path) -> str:
    """The sentence at the top."""
    match = re.search(r"<h1[^>]*>(.*?)</h1>", page.read_text(), re.S)
    assert match is not None
    return unescape(match[1])


def because(page: Path) -> str:
    match = re.search(r'<p class="because">(.*?)</p>', page.read_text(), re.S)
    assert match is not None
    return unescape(match[1])
