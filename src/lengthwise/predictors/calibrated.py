"""A predictor whose chances were corrected on answers that it had not seen: conformal calibration.

A label's rank is the chance that the predictor gave to an answer at most that long. If its chances are right, ranks are
spread evenly from 0 to 1. So the ranks of n held-out answers say what each stated chance is worth: the i-th smallest
stands for i / (n + 1), whatever the predictor is and however the lengths are distributed, as long as new prompts are
like the held-out ones (Vovk et al., conformal predictive distributions). A factor on all lengths comes first, for a
model that writes longer or shorter throughout. What comes out is one survival function a request again, so `given` and
`capped` stay coherent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lengthwise.errors import PredictorError
from lengthwise.estimates import MAX_TOKENS, Floats, LengthEstimates
from lengthwise.predictors import folder as files
from lengthwise.predictors.correction import are_levels, corrected, levels, opened, scaled
from lengthwise.predictors.residuals import Doubles
from lengthwise.predictors.survival import checked_lengths, kaplan_meier_median
from lengthwise.protocols import Backbone, LengthPredictor
from lengthwise.types import Completion, Request

KIND = "calibrated"
INNER = "inner"
MIN_ANSWERS = 20  # that were not cut; fewer say nothing of the outer tenths


class CalibratedPredictor:
    """`inner`, with its lengths times 2 ** `octaves`, and chances corrected: stated ones `stated` (k, rising from 0 to
    1) are worth `true` (k)."""

    def __init__(
        self,
        inner: LengthPredictor,
        octaves: float,
        stated: Floats,
        true: Floats,
        model: str | None = None,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        """`card` holds what it was calibrated by (`num_answers`, `num_cut` of them, and `length_factor`: what that did
        to the median of a prompt), saved beside the levels; nothing is read from it."""
        self.inner = inner
        self.octaves = octaves
        self.stated = stated
        self.true = true
        self.model = model
        self.card = dict(card or {})

    @classmethod
    def fit(
        cls,
        inner: LengthPredictor,
        requests: Sequence[Request],
        lengths: ArrayLike,
        is_censored: ArrayLike | None = None,
        *,
        model: str | None = None,
    ) -> Self:
        """Correct `inner` by answers that it did not learn from (lengths in tokens; censored: "at least this").

        `model` is the identity of the model that answered; None: that of `inner`. Raises ValueError on lengths that
        can't be, PredictorError on fewer than 20 answers that were not cut, or where `inner` knows no distribution to
        correct. Answers of which it knows nothing are left out.
        """
        tokens, censored = checked_lengths(lengths, is_censored)
        if len(tokens) != len(requests):
            raise ValueError(f"There are {len(requests)} requests and {len(tokens)} lengths; each needs its own.")
        _check_evidence(len(tokens), int(censored.sum()))
        estimates = inner.predict(requests)
        is_known = np.isfinite(estimates.median)
        if not is_known.any() or np.isfinite(estimates.limit).any():
            raise PredictorError("This predictor gives no distribution that could be calibrated; train one first.")
        tokens, censored, estimates = tokens[is_known], censored[is_known], estimates[is_known]
        _check_evidence(len(tokens), int(censored.sum()))
        octaves = _middle(np.log2(tokens / estimates.median), censored)
        stated, true = levels(opened(scaled(estimates, octaves)), tokens, censored)
        fitted = cls(inner, octaves, stated, true, model or inner.model)
        factors = np.minimum(fitted._corrected(estimates).median, MAX_TOKENS) / estimates.median
        fitted.card = {
            "num_answers": len(tokens),
            "num_cut": int(censored.sum()),
            "length_factor": round(float(np.median(factors)), 3),
        }
        return fitted

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        """Rows of which `inner` knows nothing stay so."""
        return self._corrected(self.inner.predict(requests))

    def _corrected(self, estimates: LengthEstimates) -> LengthEstimates:
        return corrected(scaled(estimates, self.octaves), self.stated, self.true)

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        self.inner.observe(requests, completions)

    # -- on disk -----------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write it into `folder`, the inner predictor into a folder inside. Raises PredictorError where that can't be
        saved."""
        target, save_inner = Path(folder), files.saver(self.inner, "the calibrated one")
        files.begin(target)
        save_inner(target / INNER)
        files.write_arrays(target, {"stated": self.stated, "true": self.true})
        files.write_header(target, KIND, {"model": self.model, "octaves": self.octaves, "card": self.card})

    @classmethod
    def load(cls, folder: str | Path, backbone: Backbone | None = None) -> Self:
        """`backbone` is for the inner predictor. Raises PredictorError on a folder that can't be read."""
        from lengthwise.predictors.saved import load_folder

        source = Path(folder)
        header = files.read_header(source)
        octaves = float(files.field(source, header, "octaves", float | int))
        arrays = files.read_arrays(source, {"stated": (None,), "true": (None,)})
        stated, true = arrays["stated"], arrays["true"]
        if not are_levels(stated, true) or not abs(octaves) < 17:
            raise PredictorError(f"{source}: its levels are no calibration. Calibrate the predictor again.")
        inner: Any = source / INNER
        if files.read_header(inner).get("kind") == KIND:
            raise PredictorError(f"{source} calibrates what is calibrated already. Calibrate the inner one again.")
        model = files.field(source, header, "model", str | None)
        card = files.field(source, {"card": {}, **header}, "card", dict)  # older folders have none
        return cls(load_folder(inner, backbone), octaves, stated, true, model, card)


def _check_evidence(num_answers: int, num_cut: int) -> None:
    if num_answers - num_cut < MIN_ANSWERS:
        cut = f", {num_cut} of them cut (known to be at least so long)," if num_cut else ""
        raise PredictorError(
            f"{num_answers} answers{cut} can't calibrate a predictor; {MIN_ANSWERS} that were not cut are needed. Give "
            f"more{', or such that had a higher limit' if num_cut else ''}."
        )


def _middle(octaves: Doubles, is_censored: NDArray[np.bool_]) -> float:
    """The median of what answers are longer than their estimate. Where most answers were cut it is not known but from
    below, and nothing becomes shorter: past the cut the inner curves go on as they were."""
    middle = kaplan_meier_median(octaves, is_censored)
    return middle if np.isfinite(middle) else max(0.0, float(octaves[~is_censored].max()))
