"""What a trained predictor learned from: saved with it, and shown beside its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lengthwise.errors import PredictorError, RequestError
from lengthwise.types import Request, SamplingParams


@dataclass(frozen=True)
class Provenance:
    """What was learned from. `target` names what a training length was: `answer` (one answer: what order, price and
    time need) or a training target of the paper (`max-of-4`)."""

    model: str | None  # identity of the served model; None: holds for any
    num_examples: int
    num_censored: int  # answers that were cut at a limit: "at least", not a length
    target: str
    seed: int
    sampling: tuple[SamplingParams, ...]  # the distinct ones, seeds left out
    lengthwise_version: str
    sklearn_version: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Any) -> Provenance:
        """Raises PredictorError on anything but what `to_json` gives."""
        names = sorted(cls.__dataclass_fields__)
        if not isinstance(fields, dict) or sorted(fields) != names:
            given = sorted(fields) if isinstance(fields, dict) else fields
            raise PredictorError(f"`learned_from` holds {given!r:.200}; {names} were expected. Train it again.")
        if not isinstance(fields["model"], str | None):
            raise PredictorError(f"`learned_from.model` is {fields['model']!r:.60}; a text or null was expected.")
        for name in ("num_examples", "num_censored"):
            if not isinstance(fields[name], int) or fields[name] < 0:
                raise PredictorError(f"`learned_from.{name}` is {fields[name]!r:.60}; a number from 0 was expected.")
        return cls(**{**fields, "sampling": _read_sampling(fields["sampling"])})


def distinct_sampling(requests: Sequence[Request]) -> tuple[SamplingParams, ...]:
    """The different ways in which these requests were sampled, in order of first use."""
    return tuple(dict.fromkeys(replace(request.sampling, seed=None) for request in requests))


def _read_sampling(rows: Any) -> tuple[SamplingParams, ...]:
    try:
        return tuple(SamplingParams(**{**row, "stop": tuple(row["stop"])}) for row in rows)
    except (TypeError, KeyError, RequestError) as error:
        raise PredictorError(f"`learned_from.sampling` can't be read ({error!r:.200}). Train it again.") from error
