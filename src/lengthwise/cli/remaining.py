"""What `lengthwise score` says of a predictor that revises its estimates while answers are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lengthwise.learning.data import LengthData
    from lengthwise.learning.scoring_remaining import RemainingScore
    from lengthwise.protocols import LengthPredictor

_HEADER = ("tokens written", "answers", "error of what remains", "by `given`", "gain, 95 % interval", "coverage 90")


def remaining_of(predictor: LengthPredictor, data: LengthData) -> list[RemainingScore]:
    """Nothing where the predictor revises nothing, or `data` has no texts."""
    from lengthwise.learning.scoring_remaining import score_remaining
    from lengthwise.protocols import AnswerReviser

    return score_remaining(predictor, data) if isinstance(predictor, AnswerReviser) else []


def remaining_table(scores: Sequence[RemainingScore]) -> list[tuple[str, ...]]:
    """Rows of a table of Markdown, header and line included."""
    rows = [
        (
            f"{one.num_tokens}",
            f"{one.num_answers:,}",
            f"{one.mae:.1f}",
            f"{one.mae_given:.1f}",
            "{:+.1f} to {:+.1f}".format(*one.gain_ci95),
            f"{one.coverage_90:.1%}",
        )
        for one in scores
    ]
    return [_HEADER, ("---",) * len(_HEADER), *rows]
