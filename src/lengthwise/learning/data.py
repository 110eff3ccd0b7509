"""Prompts and how long their answers were: what predictors are trained on and scored with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lengthwise.errors import InputError
from lengthwise.types import Request

Lengths = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class LengthData:
    """n prompts with s sampled answers each. `lengths` are tokens (n × s, NaN where a sample is missing, at least one
    a row); `is_cut` (n × s) marks answers that a limit cut: they are at least that long. `limit` is that limit, if it
    is one for all; lengths stand within it. `reference` is the length of a written reference answer (n, NaN where
    there is none): no sample of the model, but learned from. `texts` are the answers, n × up to s, None where one was
    not kept; None: none were. `model` is the identity of the model that wrote the answers, where all were collected
    from one; None: it isn't known. Raises ValueError on shapes that don't match."""

    requests: tuple[Request, ...]
    lengths: Lengths
    is_cut: Flags
    limit: int | None = None
    reference: Lengths | None = None
    name: str = "data"
    texts: tuple[tuple[str | None, ...], ...] | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        num = len(self.requests)
        shape = (num, self.lengths.shape[1] if self.lengths.ndim == 2 else 0)
        is_reference = self.reference is None or self.reference.shape == (num,)
        if self.lengths.shape != shape or self.is_cut.shape != shape or not is_reference:
            raise ValueError(
                f"{num} requests with lengths of shape {self.lengths.shape} and is_cut of {self.is_cut.shape} don't "
                "match; each request needs a row of samples."
            )
        if np.isnan(self.lengths).all(axis=1).any():
            raise ValueError("A request has no length at all; leave it out.")

    def __len__(self) -> int:
        return len(self.requests)

    def __getitem__(self, rows: NDArray[Any] | Sequence[int] | slice) -> LengthData:
        """The same of some rows, by indices, flags or a slice."""
        picked = np.arange(len(self))[rows]
        return replace(
            self,
            requests=tuple(self.requests[row] for row in picked),
            lengths=self.lengths[picked],
            is_cut=self.is_cut[picked],
            reference=None if self.reference is None else self.reference[picked],
            texts=None if self.texts is None else tuple(self.texts[row] for row in picked),
        )

    @property
    def num_samples(self) -> int:
        """The most answers to one prompt."""
        return int(self.lengths.shape[1])

    def within(self, limit: int | None) -> LengthData:
        """The same answers as a limit would have left them: longer ones end there, and are cut."""
        if limit is None:
            return self
        lowest = limit if self.limit is None else min(limit, self.limit)
        is_cut = self.is_cut | (self.lengths >= lowest)
        return replace(self, lengths=np.minimum(self.lengths, lowest), is_cut=is_cut, limit=lowest)


def read_data(source: str | Path, mirror: Path | None = None, limit: int | None = None) -> LengthData:
    """The data of a registered name or a file (JSONL or Parquet), cut at `limit` where one is given.

    A registered name may be fetched from the network when it is not in `mirror` (see `data_fetch`). Raises InputError
    on a file that can't be read, and, with its line, on a row that has no prompt or no length.
    """
    from lengthwise.learning import data_fetch, data_rows
    from lengthwise.learning.data_catalogue import CATALOGUE

    known = CATALOGUE.get(str(source))
    if known is not None and not known.has_prompts:
        raise InputError(f"{source} is a trace without prompts: nothing to learn lengths from, or to score on.")
    path = Path(source) if known is None else data_fetch.get(str(source), mirror)
    if known is None and not path.exists():
        raise InputError(f"{source} is neither a file nor a public set; `lengthwise data list` shows the sets.")
    return replace(data_rows.read_file(path), name=str(source)).within(limit)
