"""What a job is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lengthwise.errors import UsageError
from lengthwise.jobs.values import MAX_COUNT
from lengthwise.types import SamplingParams

InputFormat = Literal["auto", "jsonl", "text"]


@dataclass(frozen=True, slots=True)
class JobOptions:
    """One file of prompts to be answered into one file. Raises UsageError on a value out of range."""

    prompts: Path
    """The file of prompts; see `rows.py` for its formats."""
    answers: Path
    """Where the answers go, a line a row, in the order of the prompts. The journal stands beside it."""
    input_format: InputFormat = "auto"
    """auto: by the file's suffix, else by its first character."""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    """What holds where a row says nothing. Greedy by default: answers can then be compared and repeated."""
    max_tokens: int = 512
    """Limit of answers whose row gives none; the paper's setting (at most 512 new tokens). It is the
    engine that applies it; here it is part of what determines the answers."""
    seed: int = 0
    """A row without a seed draws from (this, its id)."""
    chat_template: str | None = None
    """How messages become text, if the caller chose it, by a name or a digest of its text: part of what determines
    the answers."""
    model: str = ""
    """The model as it was asked for, in words, so that a finished job is recognised without loading it."""
    overwrite: bool = False
    """Throw away the answers and the journal that are there, and start again."""

    def __post_init__(self) -> None:
        if not self.answers.name:
            raise UsageError(f"The answers can't go to {str(self.answers)!r}, which names no file; give one with -o.")
        if self.input_format not in ("auto", "jsonl", "text"):
            raise UsageError(f"input format is {self.input_format!r}; it must be auto, jsonl or text.")
        if self.max_tokens < 1:
            raise UsageError(f"max_tokens is {self.max_tokens}; it must be 1 or more.")
        if not 0 <= self.seed <= MAX_COUNT:
            raise UsageError(f"seed is {self.seed}; it must be from 0 to {MAX_COUNT}.")

    @property
    def journal(self) -> Path:
        return self.answers.with_name(self.answers.name + ".journal")
