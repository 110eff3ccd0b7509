"""What transformers says while it loads, kept to itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quiet() -> Iterator[None]:
    """No bars and no warnings of transformers: what matters in them is an error or a line of ours."""
    import transformers

    logging_of: Any = transformers.logging
    verbosity, has_bar = logging_of.get_verbosity(), logging_of.is_progress_bar_enabled()
    logging_of.set_verbosity_error()
    logging_of.disable_progress_bar()
    try:
        yield
    finally:
        logging_of.set_verbosity(verbosity)
        if has_bar:
            logging_of.enable_progress_bar()
