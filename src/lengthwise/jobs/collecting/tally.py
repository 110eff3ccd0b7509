"""What stands in a file of lengths."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lengthwise.errors import JobError
from lengthwise.jobs.collecting.lengths import errors_of


@dataclass(frozen=True, slots=True)
class Tally:
    """`num_prompts` have lengths, `num_partial` of them not all that were asked for; `num_failed` prompts have none.
    `num_answers` are lengths, `num_cut` of them cut by the limit; together they have `num_tokens`."""

    num_prompts: int = 0
    num_partial: int = 0
    num_failed: int = 0
    num_answers: int = 0
    num_cut: int = 0
    num_tokens: int = 0


def tally(answers: Path) -> Tally:
    """Count what a job has written. Raises JobError where it can't be read."""
    num_prompts = num_partial = num_answers = num_cut = num_tokens = 0
    try:
        with answers.open(encoding="utf-8") as file:
            for row in map(json.loads, file):
                lengths = [length for length in row["length"] if length is not None]
                num_prompts += 1
                num_partial += len(lengths) < len(row["length"])
                num_answers += len(lengths)
                num_cut += row["finish_reason"].count("length")
                num_tokens += sum(lengths)
        return Tally(num_prompts, num_partial, _num_lines(errors_of(answers)), num_answers, num_cut, num_tokens)
    except (OSError, ValueError, KeyError) as error:
        raise JobError(f"{answers} can't be read back ({error}); run the same command again.") from error


def _num_lines(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(1 for _ in file)
