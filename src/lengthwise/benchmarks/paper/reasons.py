"""Why a row's figures differ from what the paper's authors state, a sentence a row. Those of `recorded` were
checked against the figures of the default sets and cost with three seeds; those of `model` hold for any."""

from __future__ import annotations

from lengthwise.benchmarks.paper.published import BLOG

_ANOTHER = "another model, other prompts, another device: gains can be compared, rates can't"
_STAND_IN = "in place of the tuned model stands the text predictor"

REASONS: dict[tuple[str, str, str], str] = {
    ("recorded", "predictors", "vanilla"): (
        "other prompts of the same set (the paper's 1,024 are not published), of like padding; seconds are those of a "
        "cost model that was made to fit."
    ),
    ("recorded", "predictors", "ground-truth"): (
        "positions and padding are the repository's; seconds are fewer: by a linear cost large batches are cheap, and "
        "prompts are read for nothing."
    ),
    ("recorded", "predictors", "exact"): (
        "no row of the paper, whose ground truth is the longest of several answers: it is longer than the one that is "
        "run."
    ),
    ("recorded", "predictors", "text-mean"): (
        "no row of the paper, whose tuned model gained far less with the mean than with the maximum: here both gain "
        "alike, though with the mean far more are run again."
    ),
    ("recorded", "predictors", "text-max"): (
        "no row of the paper; what it gains lies between its tuned model's two published gains."
    ),
    ("recorded", "predictors", "encoder-max"): "no row of the paper.",
    ("recorded", "predictors", "refill"): (
        "no row of the paper: without any lengths, but with rows that leave when they have ended, about as fast as the "
        "paper's batches with exact lengths."
    ),
    ("recorded", "ablation", "none"): f"{_STAND_IN}; the gain is about the paper's.",
    ("recorded", "ablation", "vbs"): "not in the paper: a large batch without a cap waits for its longest answer.",
    ("recorded", "ablation", "fcr"): f"{_STAND_IN}; first attempts are counted, and the right prompts run again.",
    ("recorded", "ablation", "fcr+vbs"): f"{_STAND_IN}; first attempts are counted, and the right prompts run again.",
    (
        "recorded",
        "ablation",
        "binning",
    ): f"{_STAND_IN}; bins alone make the order coarser, here by less than the interval.",
    ("recorded", "ablation", "binning+vbs"): "not in the paper: as VBS alone.",
    ("recorded", "ablation", "binning+fcr"): f"{_STAND_IN}; first attempts are counted.",
    ("recorded", "ablation", "binning+fcr+vbs"): f"{_STAND_IN}; first attempts are counted.",
    ("model", "predictors", "ground-truth"): (
        f"{_ANOTHER}. Rows that have ended leave our engine's batches, so padding costs steps, but little computing."
    ),
    ("model", "predictors", "exact"): "no row of the paper.",
    ("model", "predictors", "text-mean"): "no row of the paper.",
    ("model", "predictors", "text-max"): "no row of the paper.",
    ("model", "predictors", "po"): f"{_ANOTHER}. The time of asking is counted.",
    ("model", "predictors", "refill"): "no row of the paper: rows are filled as they come free, without any lengths.",
}


def reason_of(part: str, table: str, row: str) -> str | None:
    """None where nothing was published, and nothing is to be said."""
    is_published_of_another = part == "model" and (table, row) in BLOG
    return REASONS.get((part, table, row), f"{_ANOTHER}." if is_published_of_another else None)
