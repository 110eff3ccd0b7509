"""Files that have one owner and survive: locking, and flushing to the disk."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

from lengthwise.errors import JobError

SYNC_INTERVAL_S = 1.0  # what power loss may cost; one fdatasync a second is not felt on any disk


class Syncer(threading.Thread):
    """Flushes a file to the disk once a second while something was written, beside the writer, who never waits."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(name="lengthwise-journal", daemon=True)
        self.is_dirty = True
        self._fd = descriptor
        self._closing = threading.Event()
        self._error: OSError | None = None
        self.start()

    def run(self) -> None:
        while not self._closing.wait(SYNC_INTERVAL_S):
            self._sync()

    def close(self) -> None:
        self._closing.set()
        self.join()
        self._sync()

    def raise_error(self, path: Path) -> None:
        if self._error is not None:
            raise JobError(
                f"{path} can't be flushed to the disk ({self._error.strerror}): what was finished last may be lost. "
                "Check the disk and run the same command again."
            )

    def _sync(self) -> None:
        if self.is_dirty:
            self.is_dirty = False  # before the flush: what is written meanwhile is flushed next time
            try:
                os.fsync(self._fd)
            except OSError as error:
                self._error = error


def sync_folder(folder: Path) -> None:
    """Make a file's creation or renaming in `folder` survive power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_locked(path: Path) -> int:
    """A descriptor of the locked file that stands at `path`."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise JobError(f"The journal {path} can't be opened ({error.strerror}); use another -o.") from error
        try:
            _lock(descriptor, path)
            if _stands_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last owner replaced or removed it between our open and our lock


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise JobError(
            f"Another process works on this job (it holds {path}). Two would mix their answers: wait for it, "
            "stop it, or use another -o."
        ) from error
    except OSError as error:
        raise JobError(f"{path} can't be locked here ({error.strerror}); use an -o on a local disk.") from error


def _stands_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
