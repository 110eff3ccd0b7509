"""The oracle: true lengths from a mapping or a file. What the best predictor could gain, and a former run as one."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from lengthwise.errors import PredictorError
from lengthwise.estimates import LengthEstimates
from lengthwise.types import Completion, Request

log = logging.getLogger("lengthwise")


class OraclePredictor:
    """True lengths by request id; of an id that it does not have nothing is known."""

    model: str | None = None

    def __init__(self, lengths: Mapping[str, float], is_censored: frozenset[str] = frozenset()) -> None:
        """`lengths` in tokens; of the ids in `is_censored` it is known only that they are at least that long."""
        self._lengths = lengths
        self._is_censored = is_censored

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read JSON lines with `id` and `length`, or `id` and `usage.completion_tokens`: the answers of a former run.

        A line whose `finish_reason` is `length` was cut: its answer is at least that long, and within a higher limit
        that limit stands for it, of which a warning tells. Lines of failed requests (`finish_reason` `error`) say
        nothing; the last line of an id counts. Raises PredictorError, with the line, on a file that can't be read.
        """
        lengths: dict[str, float] = {}
        censored: set[str] = set()
        for line_id, length, is_cut in _lines(Path(path)):
            lengths[line_id] = length
            (censored.add if is_cut else censored.discard)(line_id)
        if not lengths:
            raise PredictorError(f"{path} holds no lengths; the oracle needs lines with `id` and `length`.")
        if censored:
            log.warning(
                "%s: %d of its %d answers were cut, known only to be at least so long: under a higher limit, that "
                "limit is taken for their length.",
                path,
                len(censored),
                len(lengths),
            )
        return cls(lengths, frozenset(censored))

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        lengths = np.array([self._lengths.get(request.id, np.nan) for request in requests], dtype=np.float32)
        if len(lengths) and np.isnan(lengths).all():
            log.warning("The oracle has lengths, but none for the ids of these %d requests.", len(lengths))
        is_cut = np.array([request.id in self._is_censored for request in requests], dtype=bool)
        # At least n is more than n - 1; that leaves mass on n itself, should n be the limit again.
        known = LengthEstimates.certain(np.where(is_cut, np.nan, lengths))
        return known.given(np.where(is_cut, lengths - 1, 0))

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        """Learns nothing: what it knows is true."""


def _lines(path: Path) -> Iterator[tuple[str, float, bool]]:
    """(id, length, is it cut) of each line that has a length."""
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip() and (found := _parsed(f"{path}, line {number}", line)):
                    yield found
    except (OSError, UnicodeDecodeError) as error:
        raise PredictorError(f"{path} can't be read as JSON lines ({error}); the oracle has no lengths.") from error


def _parsed(place: str, line: str) -> tuple[str, float, bool] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise PredictorError(f"{place} is no JSON ({error}); the oracle can't be trusted with the rest.") from error
    if not isinstance(row, dict) or not isinstance(row.get("id"), str | int):
        raise PredictorError(f"{place} has no `id`; a line needs `id` and `length` or `usage.completion_tokens`.")
    if row.get("finish_reason") == "error":
        return None
    return str(row["id"]), _length(place, row), row.get("finish_reason") == "length"


def _length(place: str, row: Mapping[str, Any]) -> float:
    usage = row.get("usage")
    length = row["length"] if "length" in row else usage.get("completion_tokens") if isinstance(usage, dict) else None
    if length is None:
        raise PredictorError(
            f"{place} has no length, neither `length` nor `usage.completion_tokens`; give the answers of a former run."
        )
    if isinstance(length, bool) or not isinstance(length, int | float) or not 1 <= length < float("inf"):
        raise PredictorError(
            f"{place} has the length {length!r:.60}; a number of tokens, 1 or more, was expected. Give the answers of "
            "a former run, or each prompt's own length."
        )
    return float(length)
