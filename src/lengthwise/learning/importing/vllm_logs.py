"""What a vLLM server prints of its requests and answers.

The server has to run with `--enable-log-requests --enable-log-outputs`, and newer ones with
`VLLM_LOGGING_LEVEL=DEBUG`: else they print no prompts and no tokens. Older ones have the prompt, as the chat template
made it, and the tokens in their INFO lines.

Answers of `/v1/completions` are not printed by vLLM. Of a streamed answer each piece is printed, but not its end:
where no finish reason stands, one token is added for it. Pieces without a text (half a character) are not printed,
so that a streamed answer with many of them comes out a few tokens short.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lengthwise.learning.importing.files import TextFile, parse_object
from lengthwise.learning.importing.prompts import Prompts, prompt_of
from lengthwise.learning.importing.rows import LeftOut, LengthRow, Rows

_TEXT = r"""('[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*"|None)"""  # as Python shows it
_STREAMED = r"( \(streaming (?:delta|complete)\))?"
# Where the server's words begin: all that stands before is the logger's, and what follows may quote anything.
_MESSAGE = re.compile(r"Generated response |Received request |Request \S+ (?:JSON body|details): |non-default args: ")
_SERVER = re.compile(r"non-default args: .*'max_log_len': (\d+)")
_BODY = re.compile(r"Request (\S+) JSON body: (.*)$")
_PROMPT = re.compile(rf"Re(?:ceived re)?quest (\S+?)(?: details)?: prompt: {_TEXT}")
_PARAMS = re.compile(
    rf"Received request (\S+): (?:prompt: {_TEXT}, )?(?:sampling_)?params: SamplingParams\(n=(\d+).*\bmax_tokens=(\d+)"
)
_TOKENS = re.compile(
    rf"Generated response (\S+?){_STREAMED}(?: details: |: output: {_TEXT}, )output_token_ids: [\[(]([^\])]*)[\])]"
)
_END = re.compile(rf"Generated response (\S+?){_STREAMED}: output: {_TEXT},.* finish_reason: (\w+)")

NO_DETAILS = "the log has no {}: run the server with VLLM_LOGGING_LEVEL=DEBUG"


def is_log_line(line: str) -> bool:
    """Is it about a request?"""
    found = _MESSAGE.search(line)
    return found is not None and not found[0].startswith("non-default")


def log_rows(file: TextFile, prompts: Prompts, limit: int | None) -> Rows:
    """One row a request, as its answer ends; what has no answer in the log is left out at its end."""
    log = _Log()
    for number, line in file.lines():
        if found := _MESSAGE.search(line):
            ended = log.read(f"line {number}", line[found.start() :])
            if ended is not None:
                yield ended
    yield from log.unanswered()


@dataclass(slots=True)
class _Asked:
    """A request whose answer has not ended yet. `num_tokens` are those of the answer that is being printed."""

    place: str
    prompt: Mapping[str, Any] | None = None
    model: str | None = None
    max_tokens: int | None = None
    num_answers: int = 1
    is_body_cut: bool = False
    num_tokens: int = 0
    finish_reason: str | None = None
    lengths: list[int] = field(default_factory=list)
    are_cut: list[bool] = field(default_factory=list)


class _Log:
    """Reads a log line by line. `max_log_len` is where the server cut texts and lists of tokens, if it did."""

    def __init__(self) -> None:
        self.max_log_len: int | None = None
        self._asked: dict[str, _Asked] = {}

    def read(self, place: str, message: str) -> LengthRow | LeftOut | None:
        """What ended with this message."""
        if message.startswith("Generated response "):
            return self._answer(place, message)
        if found := _SERVER.match(message):
            self.max_log_len = int(found[1])
        elif found := _BODY.match(message):
            self._body(place, found[1], found[2])
        else:
            self._request(place, message)
        return None

    def unanswered(self) -> Rows:
        for request_id, asked in self._asked.items():
            is_completion = request_id.startswith("cmpl-")
            why = "vLLM prints no answers of /v1/completions" if is_completion else "its answer is not in the log"
            yield LeftOut(asked.place, f"request {request_id}: {why}")

    def _body(self, place: str, request_id: str, text: str) -> None:
        asked = self._asked.setdefault(request_id, _Asked(place))
        body = parse_object(text)
        if body is None:
            asked.is_body_cut = True
            self.max_log_len = max(self.max_log_len or 0, len(text))  # nothing else breaks a body
            return
        prompt = prompt_of(body)
        asked.prompt = prompt.fields if prompt else None
        asked.model = str(body["model"]) if body.get("model") else None

    def _request(self, place: str, message: str) -> None:
        if found := _PROMPT.match(message):
            asked = self._of(found[1], place)
            asked.prompt = asked.prompt or _as_prompt(found[2])
        if found := _PARAMS.match(message):
            asked = self._of(found[1], place)
            asked.num_answers, asked.max_tokens = int(found[3]), int(found[4])

    def _of(self, request_id: str, place: str) -> _Asked:
        """The request; its body stands under an id without what the kind of request puts around it."""
        bare = request_id.removeprefix("chatcmpl-")
        if request_id.startswith("cmpl-"):
            bare = request_id.removeprefix("cmpl-").rpartition("-")[0]
        if bare != request_id and bare in self._asked:
            self._asked[request_id] = self._asked.pop(bare)
        return self._asked.setdefault(request_id, _Asked(place))

    def _answer(self, place: str, message: str) -> LengthRow | LeftOut | None:
        tokens, end = _TOKENS.match(message), _END.match(message)
        found = tokens or end
        if found is None:
            return None
        asked = self._asked.get(found[1])
        if asked is None:
            return LeftOut(place, f"request {found[1]}: its prompt is not in the log") if _is_last(end) else None
        if tokens:
            asked.num_tokens += len([token for token in tokens[4].split(",") if token.strip()])
        return self._end(asked, end) if end else None

    def _end(self, asked: _Asked, end: re.Match[str]) -> LengthRow | LeftOut | None:
        """A piece of an answer, an answer, or the whole request has ended."""
        if end[4] not in ("None", "streaming_complete"):
            asked.finish_reason = end[4]
        if not _is_last(end):
            return None
        is_streamed = end[2] is not None
        if is_streamed and asked.finish_reason is None and asked.num_tokens:
            asked.num_tokens += 1
        asked.lengths.append(asked.num_tokens)
        asked.are_cut.append(asked.finish_reason == "length")
        asked.num_tokens = 0  # the next answer's, where there are several
        is_broken_off = asked.finish_reason == "abort"
        if len(asked.lengths) < asked.num_answers and not is_broken_off:
            return None
        del self._asked[end[1]]
        why = "it was broken off" if is_broken_off else self._why_not(asked, is_streamed=is_streamed)
        return LeftOut(asked.place, f"request {end[1]}: {why}") if why else _row(end[1], asked)

    def _why_not(self, asked: _Asked, *, is_streamed: bool) -> str | None:
        """Why the request gives no row, if it gives none."""
        if asked.is_body_cut:
            return f"its prompt was cut at {self.max_log_len} characters (--max-log-len)"
        if asked.prompt is None:
            return NO_DETAILS.format("prompts")
        if is_streamed and asked.num_answers > 1:
            return "its streamed answers can't be told apart"
        if not all(asked.lengths):
            return NO_DETAILS.format("tokens")
        if self.max_log_len is not None and max(asked.lengths) >= self.max_log_len and not is_streamed:
            return f"its tokens were cut at {self.max_log_len} (--max-log-len)"
        return None


def _is_last(end: re.Match[str] | None) -> bool:
    """Is it the line of a whole answer, not of a piece that was streamed?"""
    return end is not None and end[2] != " (streaming delta)"


def _as_prompt(shown: str) -> Mapping[str, Any] | None:
    return None if shown == "None" else {"prompt": ast.literal_eval(shown)}


def _row(request_id: str, asked: _Asked) -> LengthRow:
    assert asked.prompt is not None, "rows without a prompt are left out"
    if len(asked.lengths) == 1:
        length, is_cut = {"length": asked.lengths[0]}, asked.are_cut[0]
        return LengthRow(asked.place, request_id, length, asked.prompt, is_cut, asked.max_tokens, asked.model)
    samples = {"length": asked.lengths}
    return LengthRow(asked.place, request_id, samples, asked.prompt, None, asked.max_tokens, asked.model)
