"""Three pictures of a score: predicted against true lengths, stated against true chances, error by length.

Drawn with matplotlib (the extra `plot`), without a display. One hue for measured values in each, grey for what they
should be; everything that is shown stands as figures in the score, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lengthwise.errors import UsageError
from lengthwise.learning.data import Lengths
from lengthwise.learning.scoring import QUANTILES, Scored

BLUE, GREY, INK = "#1f6fb4", "#8a8a8a", "#333333"
MIN_A_BIN = 10
MAX_BINS = 10
MAX_SHAPES = 2_000  # points beyond these become one picture inside the file: as shapes, 10,000 take a megabyte
DOTS_PER_INCH = 150
BAND_TOKENS = (50, 100)

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Subject:
    """What the pictures are about, as their titles say it."""

    predictor: str
    data: str
    target: str

    def title(self, what: str) -> str:
        return f"{what}\n{self.predictor}, target {self.target}, {self.data}"


def save_plots(scored: Scored, subject: Subject, folder: Path) -> list[Path]:
    """Write `predicted.svg`, `reliability.svg` and `error.svg` into `folder`, which is made where it does not exist;
    without any distribution there is no `reliability.svg`. Raises UsageError without matplotlib, or where the folder
    can't be written."""
    try:
        import matplotlib
    except ImportError as error:
        raise UsageError("Plots need matplotlib: pip install lengthwise[plot], or leave --plot out.") from error
    drawn: dict[str, Callable[[Any, Scored], str]] = {"predicted": _draw_predicted, "error": _draw_error}
    if _has_curves(scored).any():
        drawn["reliability"] = _draw_reliability
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Text stays text, so that it can be searched and read aloud; ids and dates are left out: same data, same file.
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lengthwise", "font.size": 10}):
            return [_save(draw, scored, subject, folder / f"{name}.svg") for name, draw in drawn.items()]
    except OSError as error:
        raise UsageError(f"{folder} can't be written ({error.strerror}); use another --plot.") from error


def _save(draw: Callable[[Any, Scored], str], scored: Scored, subject: Subject, path: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes = figure.subplots()
    title = draw(axes, scored)
    axes.set_title(subject.title(title), fontsize=10, color=INK, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Date": None})
    return path


# -- predicted against true ------------------------------------------------------------------------------------


def _draw_predicted(axes: Any, scored: Scored) -> str:
    """Each prompt a point, true length across, predicted up; bands of 50 and 100 tokens around equality."""
    rows = np.flatnonzero(np.isfinite(scored.points))
    true, said = scored.labels[rows], np.maximum(scored.points[rows], 1)
    top = float(max(true.max(initial=2), said.max(initial=2))) * 1.1
    line = np.geomspace(1, top, 200)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for tokens, alpha in zip(BAND_TOKENS, (0.28, 0.16), strict=True):
        below = np.maximum(line - tokens, 1)
        axes.fill_between(
            line, below, line + tokens, color=GREY, alpha=alpha, linewidth=0, label=f"within {tokens} tokens"
        )
    axes.plot(line, line, color=GREY, linewidth=1, label="predicted = true")
    is_cut = scored.is_censored[rows]
    is_picture = len(rows) > MAX_SHAPES
    points = {"s": 9, "color": BLUE, "alpha": 0.45, "linewidths": 0, "rasterized": is_picture}
    axes.scatter(true[~is_cut], said[~is_cut], label="a prompt", **points)
    if is_cut.any():
        shape = {
            "s": 16,
            "facecolors": "none",
            "edgecolors": INK,
            "linewidths": 0.6,
            "marker": ">",
            "rasterized": is_picture,
        }
        axes.scatter(true[is_cut], said[is_cut], label="a prompt whose answer was cut: at least so long", **shape)
    low = float(max(1, min(true.min(initial=top), said.min(initial=top)) / 1.2))
    axes.set(xlim=(low, top), ylim=(low, top), xlabel="true length, tokens", ylabel="predicted length (median), tokens")
    _plain_numbers(axes.xaxis)
    _plain_numbers(axes.yaxis)
    return "Predicted against true lengths"


# -- stated against true chances -------------------------------------------------------------------------------


def _draw_reliability(axes: Any, scored: Scored) -> str:
    """For each stated chance that an answer is at most so long: in how many cases it was."""
    rows = np.flatnonzero(_has_curves(scored))
    stated = np.array(QUANTILES)
    held = _share_below(scored, rows)
    spread = 1.96 * np.sqrt(stated * (1 - stated) / len(rows))
    axes.fill_between(
        stated,
        stated - spread,
        stated + spread,
        color=GREY,
        alpha=0.25,
        linewidth=0,
        label="where 95 % lie if chances are right",
    )
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="stated = observed")
    axes.plot(stated, held, color=BLUE, marker="o", markersize=4, linewidth=1.5, label="observed")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="stated chance that the answer is at most so long")
    axes.set_ylabel(f"observed share of {len(rows):,} prompts")
    return "Reliability: stated against observed chances"


def _share_below(scored: Scored, rows: Rows) -> Lengths:
    """Share of answers at or below each stated quantile. One cut below it may be on either side: those are left out."""
    labels, edges = scored.labels[rows], scored.quantiles[:, rows]
    is_open = scored.is_censored[rows] & (labels < edges)
    is_below = (labels <= edges) & ~scored.is_censored[rows]
    return np.asarray(is_below.sum(axis=1) / np.maximum((~is_open).sum(axis=1), 1), np.float64)


def _has_curves(scored: Scored) -> NDArray[np.bool_]:
    return scored.has_number & (len(scored.quantiles) > 0)


# -- error by length -------------------------------------------------------------------------------------------


def _draw_error(axes: Any, scored: Scored) -> str:
    """By tenths of the true length: mean absolute error, and predicted less true."""
    rows = np.flatnonzero(np.isfinite(scored.points))
    order = rows[np.argsort(scored.labels[rows], kind="stable")]
    bins = np.array_split(order, max(1, min(MAX_BINS, len(order) // MIN_A_BIN)))
    centres = [float(np.median(scored.labels[part])) for part in bins if len(part)]
    errors = [scored.errors[part] for part in bins if len(part)]
    axes.axhline(0, color=GREY, linewidth=1)
    absolute = [float(np.abs(one).mean()) for one in errors]
    axes.plot(centres, absolute, color=BLUE, marker="o", markersize=4, linewidth=1.5, label="mean absolute error")
    bias = [float(one.mean()) for one in errors]
    axes.plot(
        centres, bias, color=INK, marker="s", markersize=4, linewidth=1, linestyle="--", label="predicted less true"
    )
    axes.set_xscale("log")
    _plain_numbers(axes.xaxis)
    axes.set(xlabel=f"true length, tokens (median of each of {len(errors)} equal parts)", ylabel="error, tokens")
    return "Error by length"


def _plain_numbers(axis: Any) -> None:
    """1, 2, 5, 10, ... instead of powers."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.set_minor_formatter(NullFormatter())
