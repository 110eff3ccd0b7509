"""What an engine's steps take: measured by engines; read by schedulers, estimates of a job's time and the simulator."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

from lengthwise.errors import InputError, UsageError


@dataclass(frozen=True)
class StepCost:
    """Seconds of a decode step, and of reading prompts. Raises UsageError on a value out of range.

    A step writes one token of each row: `step_fixed_s` + rows × `step_row_s` + tokens in the cache × `step_context_s`.
    Reading what enters adds `read_fixed_s` + tokens × `read_token_s`, whether in a pass of its own or along with a
    step; in chunks it costs the tokens alone. Linear, so that the time of many steps has a closed form.
    `relative_error`: how far passes were seen to lie from that, as a share (root mean square); 0 where that was not
    measured.
    """

    # 25 ms and 0.35 ms a row reproduce the throughput that the paper states for Vicuna-7B, batches of 16 in arrival
    # order and by true lengths.
    step_fixed_s: float = 0.025
    step_row_s: float = 0.00035
    # The paper's throughput has short prompts and says nothing of these: nothing is assumed.
    step_context_s: float = 0.0
    read_fixed_s: float = 0.0
    read_token_s: float = 0.0
    relative_error: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise UsageError(f"{field.name} is {value!r}; it must be a number, 0 or more.")
        if not self.step_fixed_s + self.step_row_s > 0:
            raise UsageError("A decode step takes no time; step_fixed_s or step_row_s must be above 0.")

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a JSON file with these names, or from a measurement that was kept. Raises InputError on a file that
        can't be read, UsageError on a value."""
        names = [field.name for field in fields(cls)]
        try:
            found = _kept(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} can't be read as JSON ({error}); it needs some of {', '.join(names)}.") from error
        unknown = sorted(set(found) - set(names)) if isinstance(found, dict) else [str(found)[:60]]
        if unknown or not found or not isinstance(found, dict):
            raise InputError(f"{path} has {', '.join(unknown) or 'nothing'}; it needs some of {', '.join(names)}.")
        return cls(**found)

    def to_json(self) -> dict[str, float]:
        return asdict(self)

    def step_s(self, num_rows: float, cached_tokens: float = 0.0) -> float:
        """Seconds of one step of so many rows, which have so many tokens in the cache, all together."""
        return self.step_fixed_s + num_rows * self.step_row_s + cached_tokens * self.step_context_s

    def read_s(self, num_tokens: float) -> float:
        """Seconds that reading so many tokens at once adds."""
        return self.read_fixed_s + num_tokens * self.read_token_s

    def row_tokens_per_s(self, num_rows: int, tokens_a_row: float = 0.0) -> float:
        """How fast one of so many rows writes, while nothing is read."""
        return 1 / self.step_s(num_rows, num_rows * tokens_a_row)


def _kept(found: object) -> object:
    """The cost in a file that holds more: a measurement that an engine has kept."""
    value = found.get("value") if isinstance(found, dict) else None
    return value["step_cost"] if isinstance(value, dict) and "step_cost" in value else found
