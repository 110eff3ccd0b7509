"""Correcting a predictor's chances on data that it has not seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lengthwise.learning.data import LengthData
from lengthwise.learning.labels import Target, label_one
from lengthwise.predictors.calibrated import CalibratedPredictor
from lengthwise.protocols import LengthPredictor


def calibrate(
    predictor: LengthPredictor,
    data: LengthData,
    target: Target,
    *,
    num_rows: int | None = None,
    seed: int = 0,
    model: str | None = None,
) -> CalibratedPredictor:
    """`predictor`, corrected by `num_rows` prompts of `data`, drawn by `seed` (None: all), one answer each: samples of
    one prompt are no further evidence. The prompts must not be those that it learned from. `model`: whose answers they
    are (None: those that it learned from). What is calibrated already is calibrated anew, from its inner predictor.
    Raises PredictorError on fewer than 20 answers that were not cut.
    """
    inner = predictor.inner if isinstance(predictor, CalibratedPredictor) else predictor
    labels = label_one(data, target, seed)
    rows = drawn_rows(len(labels), num_rows, seed)
    requests = [labels.requests[row] for row in rows]
    return CalibratedPredictor.fit(inner, requests, labels.values[rows], labels.is_censored[rows], model=model)


def drawn_rows(num: int, num_rows: int | None, seed: int) -> NDArray[np.intp]:
    """The prompts, of `num`, that `calibrate` takes."""
    return np.random.default_rng(seed).permutation(num)[:num_rows]
