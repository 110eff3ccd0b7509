"""`lengthwise import FILE -o LENGTHS`: files and logs of other programs become prompts with lengths."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Literal

import typer

from lengthwise.cli import options as o
from lengthwise.cli.console import say
from lengthwise.errors import InputError, UsageError

MAX_TOLD = 10  # rows that are left out are told one by one up to here; then they are counted

ImportFormat = Literal["auto", "reference", "reference-instruct", "openai-batch", "vllm-log", "vllm-bench", "answers"]

File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="Lengths of the paper's repository, OpenAI Batch output, a vLLM server's log or benchmark result, or "
        "answers of `lengthwise run`, Parquet too; plain or gzip.",
    ),
]
Output = Annotated[
    Path, typer.Option("-o", "--output", metavar="LENGTHS", help="Where the prompts with lengths go: JSONL.")
]
PromptsFile = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        metavar="PROMPTS",
        help="The prompts, joined by id, where FILE has none: a prompts file (JSONL, Parquet, or text, a line a "
        "prompt), OpenAI Batch requests, conversations of the paper's repository, or Alpaca's array of instructions.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        metavar="TOKENS", help="The most tokens that an answer could have, where FILE doesn't say; reference: 512."
    ),
]


@dataclass(slots=True)
class Told:
    """What became of the rows."""

    num_rows: int = 0
    num_left_out: int = 0
    num_without_prompt: int = 0
    first: list[str] = field(default_factory=list)

    def leave_out(self, place: str, reason: str) -> None:
        self.num_left_out += 1
        if len(self.first) < MAX_TOLD:
            self.first.append(f"{place}: {reason.rstrip('.')}")


def import_(
    file: File,
    output: Output,
    prompts: PromptsFile = None,
    format: Annotated[ImportFormat, typer.Option(help="Format of FILE; auto: seen by its content.")] = "auto",
    limit: Limit = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over an existing LENGTHS.")] = False,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Prompts with the lengths of their answers, from files and logs of other programs."""
    from lengthwise.learning.importing import find_format

    _check_output(output, [file, *([prompts] if prompts else [])], overwrite)
    found = find_format(file) if format == "auto" else format
    told = _write(file, output, prompts, found, limit)
    for line in told.first:
        say(f"{file}, {line}; left out.")
    if not quiet:
        say(_sentence(output, told, found))
    if json_:
        counts = {"rows": told.num_rows, "left_out": told.num_left_out, "without_prompt": told.num_without_prompt}
        typer.echo(json.dumps({"output": str(output), "format": found, **counts}))
    return 1 if told.num_left_out else 0


def _write(file: Path, output: Path, prompts: Path | None, format: str, limit: int | None) -> Told:
    """Raises InputError, and writes nothing, if no row has a length."""
    from lengthwise.learning.importing import LeftOut, import_lengths

    told = Told()
    with _new_file(output) as written:
        for row in import_lengths(file, prompts, format, limit):
            if isinstance(row, LeftOut):
                told.leave_out(row.place, row.reason)
            else:
                written.write(json.dumps(row.to_json(), ensure_ascii=False) + "\n")
                told.num_rows += 1
                told.num_without_prompt += not row.prompt
        if not told.num_rows:
            why = f" {told.first[0]}." if told.first else ""
            raise InputError(f"{file} holds no length that could be imported ({told.num_left_out} rows).{why}")
    return told


@contextmanager
def _new_file(output: Path) -> Iterator[IO[str]]:
    """A file beside `output` that takes its place if all went well, and is gone if not."""
    new = output.with_name(f"{output.name}.new")
    try:
        with new.open("w", encoding="utf-8", errors="backslashreplace") as file:
            yield file
        os.replace(new, output)
    except OSError as error:
        raise UsageError(f"{output} can't be written ({error.strerror}); use another -o.") from error
    finally:
        new.unlink(missing_ok=True)


def _check_output(output: Path, inputs: list[Path], overwrite: bool) -> None:
    if not output.name:
        raise UsageError(f"The lengths can't go to {str(output)!r}, which names no file; give one with -o.")
    if any(output.exists() and path.exists() and output.samefile(path) for path in inputs):
        raise UsageError(f"The lengths would be written over {output}, which is read; use another -o.")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists and is not written over; use another -o, or --overwrite.")


def _sentence(output: Path, told: Told, format: str) -> str:
    left_out = f", {told.num_left_out:,} left out" if told.num_left_out else ""
    num = told.num_without_prompt
    lacking = (
        f" {num:,} have no prompt, so nothing can be learned from them: name the file that was answered with --prompts."
        if num
        else ""
    )
    return f"{output}: {told.num_rows:,} rows with lengths ({format}){left_out}.{lacking}"
