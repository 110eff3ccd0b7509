"""What people read goes to stderr, in one place, so that stdout is free for machine output."""

from __future__ import annotations

import logging

from rich.console import Console

err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(message: str) -> None:
    """One message for people; long ones are not broken, so that they can be searched and copied."""
    err.print(f"lengthwise: {message}", markup=False)


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
