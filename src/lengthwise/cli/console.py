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
        say(record.getMessage())


def listen(is_quiet: bool) -> None:
    """Say the package's own warnings, and keep other libraries' progress bars and warnings out of the output.

    For the command only: a library does not decide what its caller's logs look like.
    """
    log = logging.getLogger("lengthwise")
    log.handlers = [_Said()]
    log.setLevel(logging.ERROR if is_quiet else logging.WARNING)
    log.propagate = False


def quiet_transformers() -> None:
    """No progress bars, no advice. Loads transformers."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
