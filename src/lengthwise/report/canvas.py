"""Inline SVG: shapes whose colours stand in the page's style sheet, so that light and dark need one picture."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import Literal

from numpy.typing import NDArray

Anchor = Literal["start", "middle", "end"]

CHARACTER = 7.4  # width of a character at the size of labels, where fonts are wide


class Canvas:
    """Shapes in drawing order; y grows downwards. `kind`s are classes of the style sheet."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self._parts: list[str] = []

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self._parts.append(f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def rectangle(self, x: float, y: float, width: float, height: float, kind: str, told: str = "") -> None:
        """`told` is shown to whoever points at it."""
        size = f'x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{max(0.0, height):.1f}"'
        inside = f"<title>{escape(told)}</title>" if told else ""
        self._parts.append(f'<rect class="{kind}" {size}>{inside}</rect>')

    def curve(self, xs: NDArray, ys: NDArray, kind: str) -> None:  # type: ignore[type-arg]
        self._parts.append(f'<path class="{kind}" d="M{_points(xs, ys)}"/>')

    def area(self, xs: NDArray, ys: NDArray, kind: str) -> None:  # type: ignore[type-arg]
        """A closed shape."""
        self._parts.append(f'<path class="{kind}" d="M{_points(xs, ys)}Z"/>')

    def dots(self, xs: NDArray, ys: NDArray, kind: str) -> None:  # type: ignore[type-arg]
        """One path of round ends of lines without a length: a third of the size of as many circles."""
        d = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in zip(xs, ys, strict=True))
        self._parts.append(f'<path class="{kind}" d="{d}"/>')

    def text(self, x: float, y: float, said: str, anchor: Anchor = "start", kind: str = "label") -> None:
        at = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
        self._parts.append(f'<text class="{kind}" {at}>{escape(said)}</text>')

    def svg(self, told: str) -> str:
        """`told` is read aloud in place of the picture."""
        box = f'viewBox="0 0 {self.width:g} {self.height:g}"'
        return f'<svg role="img" aria-label="{escape(told)}" {box}>{"".join(self._parts)}</svg>'


def stepped(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
    """Corners of a line that keeps each of n values up to the next of n + 1 places."""
    across = [place for pair in pairwise(xs) for place in pair]
    return across, [value for value in ys for _ in range(2)]


def _points(xs: NDArray, ys: NDArray) -> str:  # type: ignore[type-arg]
    return "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True))
