"""The answers to one prompt → its row: the prompt as it was given, and how long each answer was.

A record of the journal is one sample; the first of a prompt has the prompt with it, so that rows can be written from
the journal alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lengthwise.jobs.answers.encoding import json_text, line_of
from lengthwise.jobs.answers.sinks import LinesSink
from lengthwise.jobs.collecting.options import CollectOptions
from lengthwise.jobs.formats import OutputFormat
from lengthwise.jobs.outputs import WrittenFile
from lengthwise.jobs.prompts import PROMPT_FIELDS
from lengthwise.jobs.rows import Row
from lengthwise.types import Completion, Request, SamplingParams

# What says how long an answer was. Of a row that had some of it before, it would be read in place of what is collected.
ANSWER_FIELDS = frozenset(
    {"length", "completion_tokens", "usage", "finish_reason", "temperatures", "model", "text", "error"}
)
PAPER_LENGTHS = "L_"
_DEFAULTS = asdict(SamplingParams())

Fields = dict[str, Any]


class LengthsFormat:
    """A row a prompt in `answers`; prompts without any answer in a file of errors beside it."""

    name: OutputFormat = "jsonl"
    can_append = False

    def __init__(self, options: CollectOptions) -> None:
        self._options = options
        self._first = options.samples[0].suffix

    def encode(self, row: Row, completion: Completion, model: str) -> bytes:
        """One sample. `model` is the identity of the model that answered."""
        record: Fields = {"line": row.line, "id": row.id.rpartition("#t")[0], "model": model}
        if row.id.endswith(self._first) and isinstance(row.content, Request):
            record["given"] = given_fields(row.content)
        record["finish_reason"] = completion.finish_reason
        if completion.error is None:
            record["length"] = max(1, completion.completion_tokens)  # some servers don't count the token that ends it
            record["text"] = completion.text if self._options.keeps_text else None
        else:
            record["error"] = {"type": completion.error.type, "message": completion.error.message}
        return line_of(json_text(record))

    def paths(self, answers: Path) -> list[Path]:
        return [errors_of(answers), answers]

    def path_of(self, answers: Path, is_failed: bool) -> Path:
        return errors_of(answers) if is_failed else answers

    def open(self, answers: Path) -> LengthsSink:
        return LengthsSink(LinesSink(answers, errors_of(answers)), self._options)


class LengthsSink:
    """Takes samples in order, and writes a prompt's row when it has all of them."""

    def __init__(self, lines: LinesSink, options: CollectOptions) -> None:
        self._lines = lines
        self._temperatures = [sample.temperature for sample in options.samples]
        self._keeps_text = options.keeps_text
        self._samples: list[Fields] = []

    def write(self, line: bytes, is_failed: bool) -> None:
        self._samples.append(json.loads(line))
        if len(self._samples) < len(self._temperatures):
            return
        samples, self._samples = self._samples, []
        if all("error" in sample for sample in samples):
            self._lines.write(line_of(json_text(_failed_row(samples[0]))), is_failed=True)
        else:
            self._lines.write(line_of(json_text(self._row(samples))), is_failed=False)

    def finish(self) -> list[WrittenFile]:
        return self._lines.finish()

    def abort(self) -> None:
        self._lines.abort()

    def _row(self, samples: Sequence[Fields]) -> Fields:
        row = {
            "id": samples[0]["id"],
            **samples[0]["given"],
            "length": [sample.get("length") for sample in samples],
            "finish_reason": [sample["finish_reason"] for sample in samples],
            "temperatures": self._temperatures,
            "model": samples[0]["model"],
        }
        if self._keeps_text:
            row["text"] = [sample.get("text") for sample in samples]
        if any("error" in sample for sample in samples):
            row["error"] = [sample.get("error") for sample in samples]
        return row


def given_fields(request: Request) -> Fields:
    """A prompt with its settings and all its further fields, as `read_data` and `run` read them. Temperature and seed
    are the samples', and what was known of lengths before is left out."""
    prompt = {"prompt": request.prompt} if isinstance(request.prompt, str) else {"messages": list(request.prompt)}
    settings = {
        name: value
        for name, value in asdict(request.sampling).items()
        if name not in ("temperature", "seed") and value != _DEFAULTS[name]
    }
    limit = {} if request.max_tokens is None else {"max_tokens": request.max_tokens}
    return {**prompt, **limit, **settings, **request.api_fields, **_further(request.metadata)}


def errors_of(answers: Path) -> Path:
    return answers.with_name(f"{answers.stem}.errors{answers.suffix}")


def _further(metadata: Mapping[str, Any]) -> Fields:
    left_out = {*ANSWER_FIELDS, *PROMPT_FIELDS}
    return {
        name: value for name, value in metadata.items() if name not in left_out and not name.startswith(PAPER_LENGTHS)
    }


def _failed_row(sample: Fields) -> Fields:
    error = {**sample["error"], "line": sample["line"]}
    return {"id": sample["id"], "finish_reason": "error", "error": error, **sample.get("given", {})}
