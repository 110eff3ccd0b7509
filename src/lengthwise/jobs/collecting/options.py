"""What is collected of each prompt."""

from __future__ import annotations

from dataclasses import dataclass

from lengthwise.errors import RequestError, UsageError
from lengthwise.jobs.options import JobOptions
from lengthwise.types import SamplingParams

PAPER_TEMPERATURES = (0.0, 0.3, 0.5, 0.7)
MAX_SAMPLES = 1000  # of one prompt: their records are held together when its row is written


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer that is wanted of a prompt: the `number`-th (from 1) at this temperature."""

    temperature: float
    number: int

    @property
    def suffix(self) -> str:
        """What makes a prompt's id that of this sample; its last `#t` is where it begins."""
        return f"#t{self.temperature:.12g}#{self.number}"


@dataclass(frozen=True, slots=True)
class CollectOptions(JobOptions):
    """A job that asks each prompt several times. Raises UsageError on a value out of range."""

    temperatures: tuple[float, ...] = PAPER_TEMPERATURES
    """The paper's: the label is made from one answer at each."""
    num_samples: int = 1
    """Answers at each temperature; greedy ones would be equal, so there is one at 0."""
    keeps_text: bool = False
    """Write the answers' texts beside their lengths."""

    def __post_init__(self) -> None:
        JobOptions.__post_init__(self)  # not super(): a class with slots is made twice
        self._check_temperatures()
        if not 1 <= self.num_samples * len(self.temperatures) <= MAX_SAMPLES:
            raise UsageError(
                f"samples is {self.num_samples}; it must be 1 or more, and a prompt can't be asked more than "
                f"{MAX_SAMPLES:,} times in all."
            )
        if self.answers.suffix.lower() == ".parquet":
            raise UsageError(f"Lengths are written as JSON lines, and {self.answers} is named otherwise; use .jsonl.")

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All that is wanted of one prompt, in the order in which its row has them."""
        return tuple(
            Sample(temperature, number)
            for temperature in self.temperatures
            for number in range(1, 1 + (self.num_samples if temperature else 1))
        )

    def _check_temperatures(self) -> None:
        if not self.temperatures:
            raise UsageError("No temperature is given; give at least one, like 0,0.3,0.5,0.7.")
        for temperature in self.temperatures:
            try:
                SamplingParams(temperature=temperature)
            except RequestError as error:
                raise UsageError(str(error)) from error
        if len({Sample(temperature, 1).suffix for temperature in self.temperatures}) < len(self.temperatures):
            raise UsageError(
                f"temperatures is {', '.join(f'{one:g}' for one in self.temperatures)}: one stands there twice. Give "
                "each once; --samples gives more answers at each."
            )
