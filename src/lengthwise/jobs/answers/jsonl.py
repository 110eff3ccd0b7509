"""An answer a line, in the words of this package."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lengthwise.jobs.answers.contract import AnswerSink
from lengthwise.jobs.answers.encoding import json_text, line_of
from lengthwise.jobs.answers.sinks import LinesSink
from lengthwise.jobs.formats import OutputFormat
from lengthwise.jobs.rows import Row
from lengthwise.types import Completion, PredictedTokens, Request


class JsonlFormat:
    """A line a row, failed ones among them."""

    name: OutputFormat = "jsonl"
    can_append = True

    def encode(self, row: Row, completion: Completion, model: str) -> bytes:
        return line_of(answer_text(row, completion))

    def paths(self, answers: Path) -> list[Path]:
        return [answers]

    def path_of(self, answers: Path, is_failed: bool) -> Path:
        return answers

    def open(self, answers: Path) -> AnswerSink:
        return LinesSink(answers)


def answer_text(row: Row, completion: Completion) -> str:
    """An answer line's fields: `error` only where there is one, `metadata` only where the row has some, `response` (a
    server's own) only where more was asked for than a text. Put together by hand: every row passes here, and building
    a dictionary first takes three times as long."""
    return (
        f'{{"id": {json_text(row.id)}, "text": {json_text(completion.text)}, '
        f'"finish_reason": "{completion.finish_reason}", '
        f'"usage": {{"prompt_tokens": {completion.prompt_tokens}, '
        f'"completion_tokens": {completion.completion_tokens}, "recomputed_tokens": {completion.recomputed_tokens}}}, '
        f'"predicted_tokens": {_predicted(completion.predicted)}{_further(row, completion)}}}'
    )


def _predicted(predicted: PredictedTokens | None) -> str:
    return "null" if predicted is None else f'{{"p50": {_whole(predicted.p50)}, "p90": {_whole(predicted.p90)}}}'


def _whole(num_tokens: float) -> str:
    return str(round(num_tokens)) if math.isfinite(num_tokens) else "null"


def _further(row: Row, completion: Completion) -> str:
    further: dict[str, Any] = {}
    if completion.error is not None:
        further["error"] = {"type": completion.error.type, "message": completion.error.message, "line": row.line}
    if completion.response is not None and isinstance(row.content, Request) and row.content.api_fields:
        further["response"] = completion.response
    if row.metadata:
        further["metadata"] = row.metadata
    return f", {json_text(further)[1:-1]}" if further else ""
