"""The main loop, in parts.

```
loop.py        the loop itself: estimate → decide → start → record
feeding.py     what is read of the feed, and no id twice
ordering.py    what waits, estimated and in the scheduler's order
flight.py      every request between its intake and its end
completing.py  the completion that a request ends with
counts.py      what is told of a run, and asked of it, while it goes on
```
"""

from lengthwise.loop.counts import Control, Counts
from lengthwise.loop.loop import Loop

__all__ = ["Control", "Counts", "Loop"]
