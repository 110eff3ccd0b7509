"""Boosted trees, as LightGBM's own text: numbers, no code."""

from __future__ import annotations

from typing import Any

from lengthwise.errors import PredictorError
from lengthwise.estimates import Floats
from lengthwise.predictors.residuals import Doubles

TREES = "trees.txt"

_SETTINGS = {
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbose": -1,
}


def grow_trees(columns: Floats, targets: Doubles, num_trees: int, seed: int, **settings: Any) -> Any:
    """LightGBM's booster, grown on one thread, so that a seed decides all."""
    import lightgbm

    return lightgbm.train({**_SETTINGS, **settings, "seed": seed}, lightgbm.Dataset(columns, targets), num_trees)


def read_trees(text: str, num_columns: int) -> Any:
    """Raises PredictorError on a text that is none, or whose trees were grown on other columns."""
    import lightgbm

    try:
        booster = lightgbm.Booster(model_str=text)
    except lightgbm.basic.LightGBMError as error:
        raise PredictorError(f"{TREES} holds no trees ({error}). Train the predictor again.") from error
    if booster.num_feature() != num_columns:
        raise PredictorError(
            f"{TREES} was grown on {booster.num_feature()} columns; {num_columns} are there. Train the predictor again."
        )
    return booster
