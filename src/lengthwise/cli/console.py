"""What people read goes to stderr, in one place, so that stdout is free for machine output."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import TextIO

from rich.console import Console


class _Stderr(Console):
    """Falls silent where nobody reads any more or the disk is full: what is done goes on, and ends with its own exit
    code. (rich would end the process, and put /dev/null in the place of *stdout*.)"""

    def _check_buffer(self) -> None:
        try:
            super()._check_buffer()
        except (OSError, ValueError):  # ValueError: it was closed
            self._fall_silent()
        except RuntimeError:  # a signal has come amid a line: what its handler says goes out with the next one
            pass

    def on_broken_pipe(self) -> None:
        self._fall_silent()

    def _fall_silent(self) -> None:
        self.quiet = True
        discard(sys.stderr)


err = _Stderr(stderr=True, highlight=False, soft_wrap=True)


def say(message: str) -> None:
    """One message for people; long ones are not broken, so that they can be searched and copied. Never raises."""
    err.print(f"lengthwise: {message}", markup=False)


def print_line(line: str) -> None:
    """One line on stdout, for programs, out of Python's buffer when this returns. Raises BrokenPipeError where nobody
    reads it, and OSError or ValueError where it can't be written."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except (OSError, ValueError):
        discard(sys.stdout)
        raise


def reason(error: OSError | ValueError) -> str:
    return str(error.strerror if isinstance(error, OSError) else error)


def discard(stream: TextIO | None) -> None:
    """Send what goes to `stream` nowhere, what it holds too: Python would fail once more when it flushes at its end,
    and end with a code of its own."""
    with suppress(OSError, ValueError, AttributeError):  # there may be no file behind it
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]
        os.close(nowhere)


class _Said(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        say(record.getMessage() if error is None else f"{record.getMessage()} ({error!r})")


def listen(is_quiet: bool) -> None:
    """Say what the package logs; if `is_quiet`, errors only.

    For the command only: a library does not decide what its caller's logs look like.
    """
    said = _Said(logging.ERROR if is_quiet else logging.INFO)
    log = logging.getLogger("lengthwise")
    log.handlers = [said]
    log.setLevel(logging.INFO)


def quiet_transformers() -> None:
    """Keep the libraries' own progress bars and advice out of the output. Loads transformers."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
