"""Charts: each a frozen description that draws itself at a width, and says what its colours mean.

```
frame.py    two axes, grid and labels
lines.py    curves, with intervals
slots.py    how many ran over time, what was idle shaded
bars.py     values beside each other, against one of them
scatter.py  predicted against actual, both by logarithm
heat.py     a value for each pair of settings
```
"""

from __future__ import annotations

from typing import Literal, Protocol

# Who a colour stands for, the same in all charts.
Kind = Literal["base", "ours", "peer", "oracle"]

Legend = tuple[tuple[str, str], ...]  # classes of the style sheet, and what they mean


class Chart(Protocol):
    @property
    def legend(self) -> Legend: ...

    def draw(self, width: float, told: str) -> str:
        """SVG of this width; `told` is read aloud in its place."""
        ...
