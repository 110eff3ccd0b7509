"""Files that a benchmark keeps between runs. Each is put into its place when it is whole: what is there is finished."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lengthwise.errors import UsageError


def make_folders(folder: Path, names: Sequence[str]) -> None:
    """Raises UsageError where they can't be written."""
    try:
        for name in names:
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} can't be written ({error.strerror}); use another --work.") from error


def read_whole(path: Path) -> dict[str, Any] | None:
    """None where there is no file, or not a whole one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or not whole: it is made again
        return None
    return found if isinstance(found, dict) else None


def write_whole(path: Path, fields: dict[str, Any]) -> None:
    write_text_whole(path, json.dumps(fields, indent=1) + "\n")


def write_text_whole(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
