"""An answer a line, as OpenAI's Batch API writes them: answers in one file, errors in another beside it.

Ids are made from the custom_id and `created` is 0, so that the same answers are the same bytes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from lengthwise.jobs.answers.contract import AnswerSink
from lengthwise.jobs.answers.encoding import json_text, line_of
from lengthwise.jobs.answers.sinks import LinesSink
from lengthwise.jobs.formats import OutputFormat
from lengthwise.jobs.rows import Row
from lengthwise.types import Completion, ErrorInfo, Request

# Failures that say nothing of the request: the same line may succeed another time.
ENGINE_FAILURES = frozenset(
    {"access_denied", "cancelled", "invalid_response", "rate_limited", "server_error", "timeout"}
)


class BatchFormat:
    """`out.jsonl` has the answers, `out.errors.jsonl` the errors, if there are any."""

    name: OutputFormat = "openai-batch"
    can_append = True

    def encode(self, row: Row, completion: Completion, model: str) -> bytes:
        digest = hashlib.sha256(row.id.encode()).hexdigest()[:32]
        response, error = _outcome(row, completion, model, digest)
        ids = f'"id": "batch_req_{digest}", "custom_id": {json_text(row.id)}'
        return line_of(f'{{{ids}, "response": {response}, "error": {error}}}')

    def paths(self, answers: Path) -> list[Path]:
        return [_errors_of(answers), answers]

    def path_of(self, answers: Path, is_failed: bool) -> Path:
        return _errors_of(answers) if is_failed else answers

    def open(self, answers: Path) -> AnswerSink:
        return LinesSink(answers, _errors_of(answers))


def _errors_of(answers: Path) -> Path:
    return answers.with_name(f"{answers.stem}.errors{answers.suffix}")


def _outcome(row: Row, completion: Completion, model: str, digest: str) -> tuple[str, str]:
    """The line's response and its error, as JSON; one of them is null."""
    if completion.error is None:
        body = completion.response
        text = _body(row.content, completion, model, digest) if body is None else json_text(body)
        return _response(200, text, digest), "null"
    told = f"Line {row.line}: {completion.error.message}"
    if completion.error.type in ENGINE_FAILURES:
        return "null", json_text({"code": completion.error.type, "message": told})
    error = {"message": told, "type": "invalid_request_error", "param": None, "code": completion.error.type}
    return _response(400, json_text({"error": error}), digest), "null"


def _response(status_code: int, body: str, digest: str) -> str:
    return f'{{"status_code": {status_code}, "request_id": "req_{digest}", "body": {body}}}'


def _body(content: Request | ErrorInfo, completion: Completion, model: str, digest: str) -> str:
    """The answer as the API's response body: of completions for a raw text, else of chat/completions. Put together by
    hand, as in `jsonl.py`."""
    text = json_text(completion.text)
    if isinstance(content, Request) and content.is_raw:
        kind, name, answer = "text_completion", "cmpl", f'"text": {text}'
    else:
        kind, name = "chat.completion", "chatcmpl"
        answer = f'"message": {{"role": "assistant", "content": {text}, "refusal": null}}'
    num_tokens = completion.prompt_tokens + completion.completion_tokens
    return (
        f'{{"id": "{name}-{digest}", "object": "{kind}", "created": 0, "model": {json_text(model)}, '
        f'"choices": [{{"index": 0, {answer}, "logprobs": null, "finish_reason": "{completion.finish_reason}"}}], '
        f'"usage": {{"prompt_tokens": {completion.prompt_tokens}, '
        f'"completion_tokens": {completion.completion_tokens}, "total_tokens": {num_tokens}}}}}'
    )
