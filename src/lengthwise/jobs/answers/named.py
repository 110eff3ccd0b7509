"""Which format answers have."""

from __future__ import annotations

from pathlib import Path

from lengthwise.jobs.answers.batch import BatchFormat
from lengthwise.jobs.answers.contract import AnswerFormat
from lengthwise.jobs.answers.jsonl import JsonlFormat
from lengthwise.jobs.answers.parquet import ParquetFormat
from lengthwise.jobs.formats import InputFormat, OutputFormat


def make_format(asked: OutputFormat, answers: Path, input_format: InputFormat) -> AnswerFormat:
    """The format as asked; auto: Parquet by the suffix of `answers`, a batch for a batch, else JSONL."""
    formats: dict[OutputFormat, type[AnswerFormat]] = {
        "jsonl": JsonlFormat,
        "openai-batch": BatchFormat,
        "parquet": ParquetFormat,
    }
    return formats[_settled(answers, input_format) if asked == "auto" else asked]()


def _settled(answers: Path, input_format: InputFormat) -> OutputFormat:
    if answers.suffix.lower() == ".parquet":
        return "parquet"
    return "openai-batch" if input_format == "openai-batch" else "jsonl"
