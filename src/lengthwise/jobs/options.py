"""What a job is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lengthwise.errors import UsageError
from lengthwise.jobs.formats import INPUT_FORMATS, OUTPUT_FORMATS, InputFormat, OutputFormat
from lengthwise.jobs.values import MAX_COUNT
from lengthwise.types import SamplingParams

STANDARD_OUTPUT = Path("-")


@dataclass(frozen=True, slots=True)
class JobOptions:
    """Prompts to be answered into one file. Raises UsageError on a value out of range."""

    prompts: Path
    """The file of prompts; `-` is standard input. See `formats.py`."""
    answers: Path
    """Where the answers go, a line a row, in the order of the prompts. The journal stands beside it. `-` is standard
    output, for answers as they are completed: there is no journal then, and nothing to resume."""
    input_format: InputFormat = "auto"
    """auto: by the file's suffix, else by its first characters."""
    output_format: OutputFormat = "auto"
    """auto: by the suffix of `answers`, else what the prompts have."""
    prompt_field: str | None = None
    """Another name for the field that has the prompt."""
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
    model: str | None = ""
    """The model as it was asked for, in words, so that a finished job is recognised without loading it. None: none was
    named, so what answers has to be asked."""
    window: int = 4096
    """Requests that wait to be scheduled, for the pipeline: memory holds no more, and what is further down in the
    file is not seen yet. What that costs stands in docs/jobs.md."""
    as_completed: bool = False
    """Give out each answer as soon as it is there, in that order."""
    retry_failed: bool = False
    """Answer again the rows that ended as errors."""
    overwrite: bool = False
    """Throw away the answers and the journal that are there, and start again."""

    def __post_init__(self) -> None:
        if not self.answers.name:
            raise UsageError(f"The answers can't go to {str(self.answers)!r}, which names no file; give one with -o.")
        if self.input_format not in INPUT_FORMATS:
            raise UsageError(f"input format is {self.input_format!r}; it must be {_one_of(INPUT_FORMATS)}.")
        if self.output_format not in OUTPUT_FORMATS:
            raise UsageError(f"output format is {self.output_format!r}; it must be {_one_of(OUTPUT_FORMATS)}.")
        if self.max_tokens < 1:
            raise UsageError(f"max_tokens is {self.max_tokens}; it must be 1 or more.")
        if not 0 <= self.seed <= MAX_COUNT:
            raise UsageError(f"seed is {self.seed}; it must be from 0 to {MAX_COUNT}.")
        if self.window < 1:
            raise UsageError(f"window is {self.window}; it must be 1 or more.")
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.has_no_journal and not self.as_completed:
            raise UsageError(
                "Answers in the order of the prompts need a file; give one with -o, or --as-completed to have them on "
                "standard output as they are completed."
            )
        if self.has_no_journal and (self.retry_failed or self.overwrite):
            given = "--retry-failed" if self.retry_failed else "--overwrite"
            raise UsageError(f"{given} needs answers that are in a file; there are none on standard output.")
        if self.retry_failed and self.as_completed:
            raise UsageError(
                "Lines that went out as completed can't be taken back; give --retry-failed without --as-completed, and "
                "the answers are written anew, in the order of the prompts."
            )
        if self.retry_failed and self.overwrite:
            raise UsageError("--overwrite answers all rows again, failed ones too; leave --retry-failed out.")

    @property
    def has_no_journal(self) -> bool:
        return self.answers == STANDARD_OUTPUT

    @property
    def journal(self) -> Path:
        return self.answers.with_name(self.answers.name + ".journal")

    @property
    def learned(self) -> Path:
        """The folder of the predictor that learned from these answers, where none was known for the model."""
        return self.answers.with_name(self.answers.name + ".predictor")


def _one_of(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
