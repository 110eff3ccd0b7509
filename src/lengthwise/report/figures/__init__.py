"""One file a figure: numbers → charts, words and a table.

```
policies.py   every policy's latency by arrival order's
slots.py      slots at work over time
latencies.py  latency by how rare it is
waits.py      the longest wait by length
sweeps.py     from which load, and from which predictor on it pays
places.py     where it pays: loads × slots × spread
times.py      how long a run's answers take, in other orders too
predicted.py  predicted against actual lengths
```
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lengthwise.report.charts import Kind
from lengthwise.report.figure import Value
from lengthwise.report.traces import Trace

Traces = Mapping[str, tuple[Kind, Trace]]  # by the name that the page gives them


def numbers(ratio: Mapping[str, Any] | None) -> tuple[Value, Value, Value]:
    """A ratio and the ends of its interval, as cells of a table."""
    if ratio is None:
        return None, None, None
    low, high = ratio["ci95"] or (None, None)
    return ratio["mean"], low, high
