"""Past lengths by what requests have in common; what was not met for longest is forgotten first."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Self

from lengthwise.predictors.history.keys import LEVELS, bands_of, keys_of
from lengthwise.types import Request

MAX_KEYS = 65_536  # for each of the two tables, together 25 MB when full
MAX_LENGTHS = 16  # of one key, the newest: enough for a distribution, and what changed long ago is forgotten


class HistoryStore:
    """`find` gives past lengths of a request's likes, level by level. A length that is only known from below is kept
    as its negative."""

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._lengths: OrderedDict[str, list[float]] = OrderedDict()
        self._groups: OrderedDict[str, str] = OrderedDict()  # a band's digest → the first prompt that had it

    def __len__(self) -> int:
        return len(self._lengths)

    def add(self, request: Request, num_tokens: float, is_censored: bool) -> None:
        keys, bands = keys_of(request), bands_of(request)
        group = self._group(bands) or keys["prompt"]
        for band in bands:
            self._groups[band] = self._groups.get(band, group)
            self._groups.move_to_end(band)
        for level, key in {**keys, "near": group}.items():
            self._append(f"{level}:{key}", -num_tokens if is_censored else num_tokens)
        for table in (self._lengths, self._groups):
            while len(table) > self._max_keys:
                table.popitem(last=False)

    def find(self, request: Request) -> dict[str, list[float]]:
        """Level → past lengths, from general to special; levels without any are left out."""
        keys = keys_of(request)
        group = self._group(bands_of(request))
        if group is not None:
            keys["near"] = group
        found = {level: self._lengths.get(f"{level}:{keys[level]}") for level in LEVELS if level in keys}
        return {level: lengths for level, lengths in found.items() if lengths}

    def _group(self, bands: list[str]) -> str | None:
        return next((self._groups[band] for band in bands if band in self._groups), None)

    def _append(self, key: str, length: float) -> None:
        lengths = self._lengths.setdefault(key, [])
        lengths.append(length)
        del lengths[:-MAX_LENGTHS]
        self._lengths.move_to_end(key)

    # -- as JSON -----------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        return {"lengths": dict(self._lengths), "groups": dict(self._groups)}

    @classmethod
    def from_json(cls, fields: Any) -> Self:
        """Raises ValueError on anything but what `to_json` gives."""
        store = cls()
        if not isinstance(fields, dict) or not all(isinstance(fields.get(one), dict) for one in ("lengths", "groups")):
            raise ValueError("`lengths` and `groups` were expected")
        for key, lengths in fields["lengths"].items():
            if not isinstance(lengths, list) or not lengths or not all(map(_is_length, lengths)):
                raise ValueError(f"the lengths of {key!r:.40} are none")
        if not all(isinstance(group, str) for group in fields["groups"].values()):
            raise ValueError("a group is no text")
        store._lengths.update(fields["lengths"])
        store._groups.update(fields["groups"])
        return store


def _is_length(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 1 <= abs(value) < 2**31
