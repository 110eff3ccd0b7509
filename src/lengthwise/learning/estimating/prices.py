"""Tokens → money, by a table that the user gives."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthwise.errors import UsageError, shown

MILLION = 1e6
_FIELDS = {"input", "output", "currency", "batch_discount"}


@dataclass(frozen=True, slots=True)
class Price:
    """Of a million tokens. `batch_discount` is the share that a batch costs less, None where there is none. Raises
    UsageError on a value out of range."""

    input: float
    output: float
    currency: str = ""
    batch_discount: float | None = None

    def __post_init__(self) -> None:
        for name in ("input", "output"):
            value = getattr(self, name)
            if not _is_number(value) or value < 0:
                raise UsageError(
                    f"The price {name} is {shown(value)}; it must be a number, 0 or more, of a million tokens."
                )
        if not isinstance(self.currency, str):
            raise UsageError(f"currency is {shown(self.currency)}; it must be a text, like USD.")
        discount = self.batch_discount
        if discount is not None and not (_is_number(discount) and 0 <= discount <= 1):
            raise UsageError(f"batch_discount is {shown(discount)}; it must be a share from 0 to 1, like 0.5.")

    def of(self, prompt_tokens: float, answer_tokens: float) -> float:
        return (prompt_tokens * self.input + answer_tokens * self.output) / MILLION


def read_price(path: Path, model: str | None) -> Price:
    """The price of a model from a TOML or JSON file: `input` and `output` of a million tokens, `currency`,
    `batch_discount`; on top for all models, or in a table `models.NAME` for one. Raises UsageError."""
    table = _read(path)
    models = table.get("models", {})
    if not isinstance(models, dict) or not all(isinstance(one, dict) for one in models.values()):
        raise UsageError(f"{path}: `models` is {shown(models)}; it must be a table with one for each model.")
    common = {name: value for name, value in table.items() if name != "models"}
    fields = {**common, **_of_model(path, models, model, is_needed="input" not in common)}
    if unknown := sorted(fields.keys() - _FIELDS):
        raise UsageError(f"{path} has {unknown[0]!r}; a price has {', '.join(sorted(_FIELDS))}.")
    if missing := sorted({"input", "output"} - fields.keys()):
        raise UsageError(f"{path} has no {missing[0]!r} price; give that of a million tokens.")
    return Price(**fields)


def _of_model(path: Path, models: Mapping[str, Any], model: str | None, is_needed: bool) -> Mapping[str, Any]:
    """The model's own table; the only one where no model is named; none where all have one price."""
    if model is None and len(models) == 1:
        model = next(iter(models))
    if model is not None and model in models:
        found: Mapping[str, Any] = models[model]
        return found
    if is_needed:
        has = f"it has {', '.join(models)}" if models else "it has none"
        named = "no model is named (--model)" if model is None else f"the model is {model}"
        raise UsageError(f"{path}: {named}, and there is no price for it; {has}.")
    return {}


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        table = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"The prices {path} can't be read as {'JSON' if path.suffix == '.json' else 'TOML'} ({error})."
        ) from error
    if not isinstance(table, dict):
        raise UsageError(f"The prices {path} hold {shown(table)}; a table was expected.")
    return table


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
