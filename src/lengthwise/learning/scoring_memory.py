"""How much memory this process has taken at most, and what a piece of work added to that."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


def peak_mib() -> float | None:
    """Highest resident memory so far, MiB; None where the system doesn't say (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, KiB elsewhere


class Added:
    """What pieces of work add to this process's memory, MiB: to its highest, or, where that was higher before, to what
    it holds. None where the system doesn't say."""

    def __init__(self) -> None:
        self.mib: float | None = 0.0

    @contextmanager
    def counted(self) -> Iterator[None]:
        held, highest = _held_mib(), peak_mib()
        yield
        reached, now_highest = _held_mib(), peak_mib()
        if self.mib is None or highest is None or now_highest is None:
            self.mib = None
            return
        self.mib += max(0.0, (now_highest if now_highest > highest else reached) - held)


def _held_mib() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss) / 2**20
