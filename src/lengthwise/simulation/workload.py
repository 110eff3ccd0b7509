"""What is simulated: when requests come, how long their prompts are, and how long their answers turn out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lengthwise.errors import InputError, UsageError
from lengthwise.simulation.prefixes import Prefix

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Workload:
    """n requests in order of arrival, by columns. Raises InputError on values that can't be.

    `arrival_s` never falls; `prompt_tokens` are 0 or more, `output_tokens` 1 or more (natural lengths), `max_tokens`
    the limits of the answers, 1 or more; `rows` says which of the log's rows each is (prompts are found by it).
    `prefixes`: the blocks that each prompt begins with, where that is known.
    """

    arrival_s: Doubles
    prompt_tokens: Ints
    output_tokens: Ints
    max_tokens: Ints
    rows: Ints
    prefixes: tuple[Prefix, ...] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not len(self):
            raise InputError("There is no request to simulate.")
        if not np.isfinite(self.arrival_s).all() or (np.diff(self.arrival_s) < 0).any():
            raise InputError("Arrivals must be numbers that never fall; sort the requests by their arrival.")
        for name, least in (("prompt_tokens", 0), ("output_tokens", 1), ("max_tokens", 1)):
            lowest = int(getattr(self, name).min())
            if lowest < least:
                raise InputError(f"{name} has {lowest}; {least} or more were expected.")
        if self.prefixes is not None and len(self.prefixes) != len(self):
            raise InputError(f"There are {len(self.prefixes)} prefixes for {len(self)} requests; each needs one.")

    @classmethod
    def of(
        cls,
        arrival_s: NDArray[np.float64] | float,
        prompt_tokens: NDArray[np.int64] | int,
        output_tokens: NDArray[np.int64],
        max_tokens: NDArray[np.int64] | int | None = None,
        *,
        prefixes: Sequence[Prefix] | None = None,
    ) -> Workload:
        """From columns, or one value for all; sorted by arrival. Without `max_tokens` the limit is the power of two
        above the longest answer: it cuts nothing, and tells nothing of a length."""
        outputs = np.asarray(output_tokens, np.int64)
        num = len(outputs)
        limit = 2 ** int(outputs.max(initial=1)).bit_length() if max_tokens is None else max_tokens
        arrivals = np.broadcast_to(np.asarray(arrival_s, np.float64), num)
        order = np.argsort(arrivals, kind="stable")
        prompts, limits = (np.broadcast_to(np.asarray(column, np.int64), num) for column in (prompt_tokens, limit))
        begun = None if prefixes is None else tuple(prefixes[row] for row in order.tolist())
        columns = (prompts[order], outputs[order], limits[order], order.astype(np.int64))
        return cls(arrivals[order], *columns, prefixes=begun)

    def __len__(self) -> int:
        return len(self.arrival_s)

    @cached_property
    def answer_tokens(self) -> Ints:
        """What is written: natural lengths within limits."""
        return np.minimum(self.output_tokens, self.max_tokens)

    def arriving(self, arrival_s: Doubles) -> Workload:
        """The same requests in the same order, at other times (n, never falling)."""
        return replace(self, arrival_s=arrival_s)

    def taken(self, picked: Ints, arrival_s: Doubles) -> Workload:
        """Some of the requests, one as often as it is picked, at these times (never falling)."""
        columns = (self.prompt_tokens, self.output_tokens, self.max_tokens, self.rows)
        prefixes = None if self.prefixes is None else tuple(self.prefixes[row] for row in picked.tolist())
        return Workload(arrival_s, *(column[picked] for column in columns), prefixes=prefixes)

    def faster(self, factor: float) -> Workload:
        """The same arrivals, `factor` times as many a second. Raises UsageError where there is no such factor."""
        if not 0 < factor < np.inf:
            raise UsageError(f"Arrivals can't be made {factor} times as fast.")
        return self.arriving(self.arrival_s[0] + (self.arrival_s - self.arrival_s[0]) / factor)
