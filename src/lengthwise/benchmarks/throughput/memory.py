"""The most memory that was held in a while."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_CLEAR_PEAK = "5"  # https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html


class PeakMemory:
    """Resident memory of this process at its highest while this is entered (Linux), or what torch has allocated where
    the model lies on a GPU; None where nobody tells. `grown_bytes`: beyond what was held on entering, so that what
    others left does not count twice."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before: int | None = None
        self.peak_bytes: int | None = None

    @property
    def grown_bytes(self) -> int | None:
        return None if self.peak_bytes is None or self._before is None else max(0, self.peak_bytes - self._before)

    def __enter__(self) -> Self:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
        elif sys.platform == "linux" and _reset():
            self._before = _kibibytes("VmRSS")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._device.type == "cuda":
            self.peak_bytes = torch.cuda.max_memory_allocated(self._device)
        elif self._before is not None:
            self.peak_bytes = _kibibytes("VmHWM")


def _reset() -> bool:
    """Whether the system lets a process begin anew with its peak."""
    try:
        _CLEAR.write_text(_CLEAR_PEAK)
    except OSError:
        return False
    return True


def _kibibytes(name: str) -> int:
    """An entry of the status file, in bytes."""
    lines = _STATUS.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
