"""Measurements that are kept between runs: one small JSON file each in the user's cache folder.

A file that can't be read, is damaged, or can't be written costs a warning and a second's measurement, nothing else.
Files are written under a name of their own and renamed, so readers and other writers never see half of one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger("lengthwise")

T = TypeVar("T")
Key = Mapping[str, str | int]


def cache_dir() -> Path:
    """LENGTHWISE_CACHE_DIR, or the platform's place for caches with `lengthwise` behind it."""
    if chosen := os.environ.get("LENGTHWISE_CACHE_DIR"):
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or _home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = os.environ.get("XDG_CACHE_HOME") or _home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or _home() / ".cache"
    return Path(base) / "lengthwise"


def _home() -> Path:
    """The user's home; the folder for temporary files where a user has none, as in some containers."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(tempfile.gettempdir())


def path_of(key: Key) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache_dir() / "probes" / f"{digest[:24]}.json"


def read(key: Key, parse: Callable[[dict[str, Any]], T]) -> T | None:
    """What was kept for `key`, or None. `parse` may raise KeyError, TypeError or ValueError on damaged content."""
    path = path_of(key)
    try:
        return parse(json.loads(path.read_text(encoding="utf-8"))["value"])
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, ValueError) as error:
        log.warning("The kept measurement %s can't be used (%s): measuring again.", path, error)
        return None


def newest(wanted: Key, parse: Callable[[dict[str, Any]], T]) -> T | None:
    """What was kept last for any key that has all of `wanted`; None where there is nothing that can be used."""
    found: list[tuple[float, T]] = []
    for path in (cache_dir() / "probes").glob("*.json"):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if wanted.items() <= content["key"].items():
                found.append((path.stat().st_mtime, parse(content["value"])))
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            log.warning("The kept measurement %s can't be used (%s).", path, error)
    return max(found, key=lambda one: one[0])[1] if found else None


def write(key: Key, value: Mapping[str, object]) -> None:
    path = path_of(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            json.dump({"key": key, "value": value}, file)  # the key is there for people
        os.replace(file.name, path)
    except OSError as error:
        log.warning("The measurement can't be kept in %s (%s): it will be repeated next time.", path.parent, error)
