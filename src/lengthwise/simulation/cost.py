"""How long an engine's steps take: linear, so that the time of many steps has a closed form."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from lengthwise.errors import InputError, UsageError


@dataclass(frozen=True)
class CostModel:
    """Seconds of a decode step, and of reading prompts. Raises UsageError on a value out of range.

    A step writes one token of each row: `step_fixed_s` + rows × `step_row_s` + tokens in the cache × `step_context_s`.
    Reading is a pass of its own: `read_fixed_s` + tokens × `read_token_s`; in chunks it is a part of the step, and
    costs the tokens alone.
    """

    # 25 ms and 0.35 ms a row reproduce the throughput that the paper states for Vicuna-7B, batches of 16 in arrival
    # order and by true lengths.
    step_fixed_s: float = 0.025
    step_row_s: float = 0.00035
    # The paper's throughput has short prompts and says nothing of these: nothing is assumed.
    step_context_s: float = 0.0
    read_fixed_s: float = 0.0
    read_token_s: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise UsageError(f"{field.name} is {value!r}; it must be seconds, 0 or more.")
        if not self.step_fixed_s + self.step_row_s > 0:
            raise UsageError("A decode step takes no time; step_fixed_s or step_row_s must be above 0.")

    @classmethod
    def read(cls, path: Path) -> CostModel:
        """From a JSON file with these names. Raises InputError on a file that can't be read, UsageError on a value."""
        names = [field.name for field in fields(cls)]
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} can't be read as JSON ({error}); it needs some of {', '.join(names)}.") from error
        unknown = sorted(set(found) - set(names)) if isinstance(found, dict) else [str(found)[:60]]
        if unknown or not found:
            raise InputError(f"{path} has {', '.join(unknown) or 'nothing'}; it needs some of {', '.join(names)}.")
        return cls(**found)

    def to_json(self) -> dict[str, float]:
        return asdict(self)

    def row_tokens_per_s(self, num_rows: int, tokens_a_row: float = 0.0) -> float:
        """How fast one of so many rows writes, while nothing is read."""
        return 1 / (self.step_fixed_s + num_rows * (self.step_row_s + tokens_a_row * self.step_context_s))


def steps_s(num_steps: int, first_s: float, growth_s: float) -> float:
    """Seconds of steps of which the first takes `first_s` and each `growth_s` more than the one before."""
    return num_steps * (first_s + growth_s * (num_steps - 1) / 2)


def steps_until(wanted_s: float, first_s: float, growth_s: float) -> int:
    """The fewest steps, at least one, that take `wanted_s` or longer."""
    if wanted_s <= first_s:
        return 1
    if growth_s > 0:
        linear = first_s - growth_s / 2
        root = 2 * wanted_s / (linear + math.sqrt(linear * linear + 2 * growth_s * wanted_s))
    else:
        root = wanted_s / first_s
    num = math.ceil(root)
    while num > 1 and steps_s(num - 1, first_s, growth_s) >= wanted_s:  # rounding
        num -= 1
    while steps_s(num, first_s, growth_s) < wanted_s:
        num += 1
    return num
