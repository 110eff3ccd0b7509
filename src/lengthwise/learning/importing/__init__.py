"""Files and logs of other programs → prompts with the lengths of their answers.

One file a format: a function from a file, the prompts and a limit to rows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lengthwise.errors import InputError, UsageError
from lengthwise.learning.importing import answers, openai_batch, reference, vllm_bench, vllm_logs
from lengthwise.learning.importing.files import TextFile, parse_object
from lengthwise.learning.importing.prompts import Prompts, read_prompts
from lengthwise.learning.importing.rows import LeftOut, LengthRow, Rows, sound

__all__ = ["FORMATS", "LeftOut", "LengthRow", "find_format", "import_lengths"]

_ROWS_OF: dict[str, Callable[[TextFile, Prompts, int | None], Rows]] = {
    "reference": reference.length_rows,
    "reference-instruct": reference.instruct_rows,
    "openai-batch": openai_batch.batch_rows,
    "vllm-log": vllm_logs.log_rows,
    "vllm-bench": vllm_bench.bench_rows,
    "answers": answers.answer_rows,
}
FORMATS = ("auto", *_ROWS_OF)
EXPECTED = (
    "a *-length.json or *-instruct.json of the paper's repository, an OpenAI Batch output file, the log of a vLLM "
    "server with --enable-log-requests and --enable-log-outputs, a result of `vllm bench serve --save-detailed`, or an "
    "answers file of `lengthwise run`"
)


def import_lengths(path: Path, prompts: Path | None = None, format: str = "auto", limit: int | None = None) -> Rows:
    """The rows of a file, ids different, lengths within their limits; a LeftOut for each that gives no length.

    `prompts` is the file that the prompts stand in, joined by id, for formats that have none. `limit` is the most
    tokens that an answer could have, where the file doesn't say. Raises InputError where a file is wrong as a whole.
    """
    if format not in FORMATS:
        raise UsageError(f"format is {format!r}; it must be one of {', '.join(FORMATS)}.")
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}; it must be 1 token or more.")
    file = TextFile(path)
    read = _ROWS_OF[find_format(path) if format == "auto" else format]
    known = Prompts() if prompts is None else read_prompts(TextFile(prompts))
    return sound(read(file, known, limit))


def find_format(path: Path) -> str:
    """Raises InputError, with what was expected, for a file of no format that is known here."""
    file = TextFile(path)
    first = file.first_line()
    if first is None:
        raise InputError(f"{path} is empty: there is nothing to import.")
    if first.startswith("["):
        found = _format_of_array(file)
    else:
        found = _format_of_line(first) or ("vllm-log" if _has_log(file) else None)
    if found is None:
        raise InputError(f"{path} is in no format that can be imported. Wanted is {EXPECTED}.")
    return found


def _format_of_array(file: TextFile) -> str | None:
    first = next((row for row in file.array() if isinstance(row, dict)), {})
    if any(name.startswith("L_") for name in first):
        return "reference"
    if "conversations" not in first:
        return None
    if reference.stated_length(first) is None:
        reference.refuse_words(file)
    return "reference-instruct"


def _format_of_line(line: str) -> str | None:
    row = parse_object(line) or {}
    if "custom_id" in row and "response" in row:
        return "openai-batch"
    if "output_lens" in row or "total_output_tokens" in row:
        return "vllm-bench"
    is_answer = {"id", "finish_reason"} <= row.keys() and not row.keys().isdisjoint({"usage", "completion_tokens"})
    return "answers" if is_answer else None


def _has_log(file: TextFile) -> bool:
    return any(vllm_logs.is_log_line(line) for _, line in file.lines())
