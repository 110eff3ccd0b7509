"""Predicted against actual lengths, and how often what was stated held."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lengthwise.report.charts.scatter import FACTOR, ScatterChart
from lengthwise.report.figure import Figure, Panel, Table
from lengthwise.report.numbers import percent
from lengthwise.report.run_record import NotedAnswer

MAX_DOTS = 1_500  # more of them make a blot, and a large file


def predicted(answers: Sequence[NotedAnswer]) -> Figure | None:
    """None where nothing was known of any length."""
    known = [(one, one.predicted) for one in answers if one.predicted is not None]
    if not known:
        return None
    came = np.array([one.completion_tokens for one, _ in known], np.float64)
    p50, p90 = (np.array([getattr(said, name) for _, said in known], np.float64) for name in ("p50", "p90"))
    near = float((np.abs(np.log(came / np.maximum(p50, 1))) <= np.log(FACTOR)).mean())
    below = float((came <= p50).mean()), float((came <= p90).mean())
    says = (
        f"Each dot is an answer; on the dashed line it was as long as predicted. {percent(near)} came within a "
        f"factor of two. {percent(below[0])} were no longer than their median said (right would be 50 %), "
        f"{percent(below[1])} no longer than their 90 % bound (90 %)."
    )
    step = -(-len(known) // MAX_DOTS)
    chart = ScatterChart(came[::step], np.maximum(p50[::step], 1))
    rows = tuple(
        (one.id, one.completion_tokens, said.p50, said.p90, one.prompt_tokens, one.max_tokens) for one, said in known
    )
    columns = ("id", "tokens that came", "predicted median", "predicted 90 % bound", "prompt tokens", "limit")
    told = f"{len(known):,} answers: {percent(near)} within a factor of two of what was predicted"
    return Figure("predicted", "Predicted and actual lengths", says, (Panel(chart, told),), Table(columns, rows))
