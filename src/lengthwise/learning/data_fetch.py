"""Getting a public set: from the user's mirror folder, else from the cache, else from its public home."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from lengthwise.engines.transformers.probe_store import cache_dir
from lengthwise.errors import InputError, UsageError, first_line
from lengthwise.learning.data_catalogue import CATALOGUE, Part, Recipe, Row

log = logging.getLogger("lengthwise")

MIRROR_VARIABLE = "LENGTHWISE_DATA_MIRROR"


def get(name: str, mirror: Path | None = None) -> Path:
    """The file of a registered set: that of the mirror itself where it stands there ready, else one in the cache.

    `mirror` is a folder that is looked into first (None: that of LENGTHWISE_DATA_MIRROR, if set). Every part's
    SHA-256 is checked. Raises UsageError on an unknown name and a missing mirror, InputError on a part of another
    content, or that can't be fetched.
    """
    if name not in CATALOGUE:
        raise UsageError(f"There is no set {name!r}; `lengthwise data list` shows the names.")
    folder = _mirror(mirror)
    recipe = _recipe(name, folder)
    paths = [_part(part, folder) for part in recipe.parts]
    return paths[0] if recipe.join is None else _write(_folder() / f"{name}.jsonl", recipe.join(paths))


def home_of(name: str, mirror: Path | None = None) -> str:
    """Where `get` would take a set from: `mirror`, `public` (its home, or the cache), or `none`. Raises UsageError on a
    missing mirror."""
    folder = _mirror(mirror)
    try:
        recipe = _recipe(name, folder)
    except InputError:
        return "none"
    return "mirror" if folder is not None and _is_in(folder, recipe) else "public"


def _mirror(mirror: Path | None) -> Path | None:
    found = mirror or (Path(os.environ[MIRROR_VARIABLE]) if os.environ.get(MIRROR_VARIABLE) else None)
    if found is not None and not found.is_dir():
        raise UsageError(f"The mirror {found} is no folder; correct it, or leave it out to fetch from public homes.")
    return found


def _recipe(name: str, mirror: Path | None) -> Recipe:
    """The recipe that the mirror can serve, else the public one."""
    recipes = CATALOGUE[name].recipes
    if mirror is not None:
        for recipe in recipes:
            if _is_in(mirror, recipe):
                return recipe
    for recipe in recipes:
        if recipe.is_public:
            return recipe
    place = recipes[0].parts[0].place
    raise InputError(f"{name} has no public file; give a --mirror folder that holds {place}.")


def _is_in(mirror: Path, recipe: Recipe) -> bool:
    return all((mirror / part.place).is_file() for part in recipe.parts)


def _part(part: Part, mirror: Path | None) -> Path:
    if mirror is not None and (mirror / part.place).is_file():
        _check(mirror / part.place, part.sha256)
        return mirror / part.place
    return _fetched(part)


def _check(path: Path, wanted: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted:
        raise InputError(f"{path} has SHA-256 {found}, not {wanted}: other content. Remove it, or use another mirror.")


def _fetched(part: Part) -> Path:
    """The part in the cache, fetched where it is not there or damaged."""
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")  # it would write to stderr on its own
    target = _folder() / "parts" / part.place
    if not target.is_file():
        log.info("Fetching %s", part.url)
    try:
        return Path(pooch.retrieve(part.url, f"sha256:{part.sha256}", target.name, target.parent))
    except (OSError, ValueError) as error:  # requests' errors are OSErrors, a wrong hash is a ValueError
        is_offline = isinstance(error, requests.ConnectionError)
        why = f"{urlsplit(part.url or '').netloc} can't be reached" if is_offline else first_line(error)
        raise InputError(
            f"{part.url} can't be fetched ({why}). Try again, or give a --mirror folder that holds {part.place}."
        ) from error


def _folder() -> Path:
    return cache_dir() / "data"


def _write(path: Path, rows: Iterable[Row]) -> Path:
    """All or nothing: written beside its place, then renamed."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path} can't be written ({error.strerror}); set LENGTHWISE_CACHE_DIR elsewhere.") from error
    return path
