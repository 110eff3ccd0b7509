"""Where each request's record stands in a journal, without holding it in memory."""

from __future__ import annotations

import os
import sys
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path

_BYTES = 8  # of an offset
_CHUNK = 4096  # offsets read at once


class Index:
    """Which requests are finished, which of them failed, and at which byte each one's last record begins.

    Costs two bits of memory a request, and eight bytes in a temporary file in `folder`, which has no name and is gone
    with the process: ten million requests are 2.5 MB and 80 MB. Raises OSError when the disk does.
    """

    def __init__(self, folder: Path) -> None:
        self.num_finished = 0
        self.num_failed = 0
        self._finished = bytearray()
        self._failed = bytearray()
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (lives as long as this does)
        self._fd = self._file.fileno()

    def note(self, index: int, offset: int, is_failed: bool) -> None:
        """The record of request `index` begins at `offset`; one noted before is superseded."""
        os.pwrite(self._fd, offset.to_bytes(_BYTES, sys.byteorder), index * _BYTES)
        at, bit = index >> 3, 1 << (index & 7)
        if at >= len(self._finished):
            self._grow(at)
        self.num_failed += is_failed - bool(self._failed[at] & bit)
        self._failed[at] = self._failed[at] | bit if is_failed else self._failed[at] & ~bit
        self.num_finished += not self._finished[at] & bit
        self._finished[at] |= bit

    def __contains__(self, index: int) -> bool:
        return _has(self._finished, index)

    def has_failed(self, index: int) -> bool:
        return _has(self._failed, index)

    def offset(self, index: int) -> int:
        """KeyError if the request is not finished."""
        if index not in self:
            raise KeyError(index)
        return int.from_bytes(os.pread(self._fd, _BYTES, index * _BYTES), sys.byteorder)

    def offsets(self, num: int) -> Iterator[int]:
        """Those of requests 0 to `num` - 1, all of which are finished."""
        for first in range(0, num, _CHUNK):
            chunk = array("Q", os.pread(self._fd, _BYTES * min(_CHUNK, num - first), _BYTES * first))
            yield from chunk

    def close(self) -> None:
        self._file.close()

    def _grow(self, at: int) -> None:
        room = bytes(max(at + 1 - len(self._finished), len(self._finished), 1024))
        self._failed += room
        self._finished += room


def _has(bits: bytearray, index: int) -> bool:
    at = index >> 3
    return at < len(bits) and bool(bits[at] & 1 << (index & 7))
