"""The command `lengthwise`. One file a subcommand; `app.py` registers them, a line each.

Exit codes: 0 done, 1 some requests failed or the engine broke, 2 wrong usage, 130 and 143 interrupted (by SIGINT, by
SIGTERM), 141 nobody reads the answers any more.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType

_EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (None: those of the process, which ends with it) and return its exit code.
    Never raises for what a user did wrong: that is one sentence on stderr."""
    if arguments is not None:
        return _run(arguments)
    _hold_standard_streams()
    with _ending_at_once():
        import_module("lengthwise.cli.app")
    code = _run(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left that could be interrupted
    return code


def _run(arguments: Sequence[str]) -> int:
    try:
        from lengthwise.cli.app import run_app

        return run_app(arguments)
    except KeyboardInterrupt:  # before there was anything to stop cleanly
        return _EXIT_INTERRUPTED


@contextmanager
def _ending_at_once() -> Iterator[None]:
    """While entered, Ctrl-C ends the process: modules are loaded, and an exception might come out anywhere."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _end)
    yield
    signal.signal(signal.SIGINT, before)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(_EXIT_INTERRUPTED)


def _hold_standard_streams() -> None:
    """Where one of the three was closed, /dev/null takes its number: else a file of the job got it, and what a library
    says on stderr would be written into that."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
