"""The predictor that knows nothing: arrival order, and no caps."""

from __future__ import annotations

from collections.abc import Sequence

from lengthwise.estimates import LengthEstimates
from lengthwise.types import Completion, Request


class UnknownPredictor:
    """Says "nothing is known" of every request: what is used until something was learned of a model."""

    model: str | None = None

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        return LengthEstimates.unknown(len(requests))

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        """Learns nothing."""
