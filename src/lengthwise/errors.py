"""What can go wrong, as one tree.

LengthwiseError
├── UsageError        the caller asked for something that can't be done: option, value, combination   (exit code 2)
│   ├── InputError    a file that is wrong as a whole: missing, empty, a directory
│   ├── ModelError    a model folder or hub id that can't be loaded
│   ├── PredictorError a saved predictor that can't be loaded
│   └── JobError      a job that can't go on: fingerprints differ, another process holds it
├── RequestError      one request can't be run; it becomes an error row, the others go on             (exit code 1)
└── EngineError       the engine broke; what is finished is safe, the job can be resumed              (exit code 1)

Messages name the value, the consequence and a way out. `RequestError.type` is the word that stands in an
answer line's `error.type`.
"""

from __future__ import annotations

MAX_SHOWN_CHARS = 60  # of a value: enough to find it again, and no message as long as a prompt


class LengthwiseError(Exception):
    """Root of every error that this package raises on purpose."""


class UsageError(LengthwiseError):
    """The caller asked for something that can't be done."""


class InputError(UsageError):
    """An input file is wrong as a whole."""


class ModelError(UsageError):
    """A model can't be loaded as asked."""


class PredictorError(UsageError):
    """A saved predictor can't be loaded, or can't be used here."""


class JobError(UsageError):
    """A job can't be started or resumed."""


class EngineError(LengthwiseError):
    """The engine broke while it ran."""


class RequestError(LengthwiseError):
    """One request can't be run. `type` is a stable word for programs, the message is for people."""

    def __init__(self, type: str, message: str) -> None:
        super().__init__(message)
        self.type = type


def shown(value: object) -> str:
    """A value in a message: a long one by its beginning, one that can't say what it is (nested too deeply) by its
    type."""
    try:
        text = repr(value)
    except Exception:
        return f"of type {type(value).__name__}"
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"


def counted(num: int, noun: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{num:,} {noun}" if num == 1 else f"{num:,} {noun}s"


def first_line(error: BaseException) -> str:
    """What an error of another library says, on one line; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def typed_line(error: BaseException) -> str:
    """`first_line` with the error's type before it."""
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"
