"""The constant predictor: the same distribution for every request. The baseline that every other must beat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from lengthwise.errors import PredictorError
from lengthwise.estimates import GRID, LengthEstimates
from lengthwise.predictors import folder as files
from lengthwise.predictors.survival import checked_lengths, length_curve
from lengthwise.types import Completion, Request

KIND = "constant"


class ConstantPredictor:
    """One distribution for all. Its median is the best constant guess in mean absolute error."""

    def __init__(self, estimate: LengthEstimates, model: str | None = None) -> None:
        """`estimate` has one row, not narrowed by `given`. `model` None: it holds for any model."""
        if len(estimate) != 1:
            raise ValueError(f"A constant predictor needs one estimate; {len(estimate)} were given.")
        self.model = model
        self._estimate = estimate

    @classmethod
    def of_length(cls, num_tokens: float) -> Self:
        """Every answer has `num_tokens` tokens."""
        return cls(LengthEstimates.certain(checked_lengths([num_tokens], None)[0]))

    @classmethod
    def fit(cls, lengths: ArrayLike, is_censored: ArrayLike | None = None, *, model: str | None = None) -> Self:
        """The distribution of these lengths (tokens, n ≥ 1); a censored one was cut there: "at least this".

        Raises ValueError on what can't be a length.
        """
        tokens, censored = checked_lengths(lengths, is_censored)
        if not len(tokens):
            raise ValueError("A distribution needs at least one length; none was given.")
        return cls(LengthEstimates.from_survival(length_curve(tokens, censored)), model)

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        """The same row for each request; the rows share their memory."""
        num = len(requests)
        return replace(
            LengthEstimates.unknown(num),
            survival=np.broadcast_to(self._estimate.survival, (num, len(GRID))),
            limit=np.repeat(self._estimate.limit, num),
        )

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        """Learns nothing: a constant stays what it was."""

    def save(self, folder: str | Path) -> None:
        """Write it into `folder`, which is made where it does not exist."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        limit = float(self._estimate.limit[0])
        fields = {"survival": self._estimate.survival[0].tolist(), "limit": limit if math.isfinite(limit) else None}
        files.write_header(target, KIND, {"model": self.model, **fields})

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Raises PredictorError on a folder that can't be read."""
        source = Path(folder)
        header = files.read_header(source)
        model = files.field(source, header, "model", str | None)
        limit = files.field(source, header, "limit", float | int | None)
        survival = files.field(source, header, "survival", list)
        try:
            curve = LengthEstimates.from_survival([[float(value) for value in survival]])
        except (TypeError, ValueError) as error:
            raise PredictorError(f"{source}: `survival` is no curve ({error}). Train the predictor again.") from error
        return cls(curve.capped(math.inf if limit is None else limit), model)
