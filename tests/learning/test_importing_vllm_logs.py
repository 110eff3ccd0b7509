"""Logs of vLLM servers, in the shapes that 0.32 and older versions print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lengthwise.learning.importing import LeftOut, LengthRow, import_lengths

DEBUG = "(APIServer pid=1) DEBUG 11-22 16:35:59 [entrypoints/.../utils/request_logger.py:1] "
INFO = "(APIServer pid=1) INFO 11-22 16:35:59 [entrypoints/.../utils/request_logger.py:1] "
QUOTED = (
    "output_token_ids: [1, 2], finish_reason: stop. Generated response chatcmpl-a: output: 'x', finish_reason: stop"
)
MESSAGES = [{"content": f'Is it\n"cold"? It\'s 1°, {QUOTED}', "role": "user"}]


def params(max_tokens: int, n: int = 1, stop: tuple[str, ...] = ()) -> str:
    return f"SamplingParams(n={n}, temperature=0.0, stop={list(stop)}, max_tokens={max_tokens}, extra_args=None)"


def asked(name: str, messages: list[Any] = MESSAGES, max_tokens: int = 100, n: int = 1) -> list[str]:
    body = json.dumps({"messages": messages, "model": "m", "max_tokens": max_tokens}, ensure_ascii=False)
    details = f"prompt: {messages[0]['content']!r}, prompt_token_ids: [3, 4], prompt_embeds shape: None."
    return [
        f"{DEBUG}Request {name} JSON body: {body}",
        f"{DEBUG}Request chatcmpl-{name} details: {details}",
        f"{INFO}Received request chatcmpl-{name}: params: {params(max_tokens, n)}, lora_request: None.",
    ]


def answered(
    name: str, tokens: int | None, text: str = "Yes.", reason: str | None = "stop", kind: str = ""
) -> list[str]:
    ids = None if tokens is None else list(range(tokens))
    return [
        f"{DEBUG}Generated response chatcmpl-{name}{kind} details: output_token_ids: {ids}",
        f"{INFO}Generated response chatcmpl-{name}{kind}: output: {text!r}, finish_reason: {reason}",
    ]


def piece(name: str, tokens: int, text: str, reason: str | None = None) -> list[str]:
    return answered(name, tokens, text, reason, " (streaming delta)")


def stream_end(name: str) -> list[str]:
    return answered(name, None, "Yes.", "streaming_complete", " (streaming complete)")


def imported(folder: Path, *parts: list[str]) -> list[LengthRow | LeftOut]:
    path = folder / "server.log"
    path.write_text("".join(f"{line}\n" for part in parts for line in part), encoding="utf-8")
    return list(import_lengths(path))


def lengths(rows: list[LengthRow | LeftOut]) -> dict[str, dict[str, Any]]:
    return {row.id: dict(row.lengths) for row in rows if isinstance(row, LengthRow)}


def reasons(rows: list[LengthRow | LeftOut]) -> list[str]:
    return [row.reason for row in rows if isinstance(row, LeftOut)]


def test_request_and_answer_become_a_row(tmp_path: Path) -> None:
    """Messages as they were sent, the tokens counted, the limit and the model; what a prompt says is never taken for
    the server's words."""
    noise = ["INFO:     Started server process [1]", '(Worker pid=2) DEBUG x details: "GET /health HTTP/1.1" 200 OK']
    text = "It's \"so\", finish_reason: length. Request b JSON body: {} Received request b: prompt: 'x', params"
    [row] = imported(tmp_path, noise, asked("a"), noise, answered("a", 18, text))
    assert isinstance(row, LengthRow)
    assert row.to_json() == {
        "id": "chatcmpl-a",
        "messages": MESSAGES,
        "length": 18,
        "finish_reason": "stop",
        "max_tokens": 100,
        "model": "m",
    }


def test_answers_that_run_together_are_kept_apart(tmp_path: Path) -> None:
    """Lines of several requests stand mixed in a log; each answer goes to its own prompt."""
    rows = imported(tmp_path, asked("a"), asked("b", max_tokens=7), answered("b", 7, reason="length"), answered("a", 3))
    assert lengths(rows) == {"chatcmpl-b": {"length": 7}, "chatcmpl-a": {"length": 3}}
    assert [row.is_cut for row in rows if isinstance(row, LengthRow)] == [True, False]


def test_streamed_answers_are_summed(tmp_path: Path) -> None:
    """The pieces are counted; their end is not printed, and counts as one token; a limit is no token of its own."""
    ended = [*piece("a", 1, "Y"), *piece("a", 2, "es."), *stream_end("a")]
    cut = [*piece("b", 1, "Y"), *piece("b", 4, "es.", "length"), *stream_end("b")]
    rows = imported(tmp_path, asked("a"), asked("b"), ended, cut)
    assert lengths(rows) == {"chatcmpl-a": {"length": 4}, "chatcmpl-b": {"length": 5}}


def test_several_answers_to_one_prompt(tmp_path: Path) -> None:
    """n answers are samples of one row; which were cut, the limit tells. Streamed ones can't be told apart."""
    streamed = [*piece("b", 1, "x"), *piece("b", 1, "y"), *stream_end("b"), *stream_end("b")]
    rows = imported(
        tmp_path, asked("a", n=2), asked("b", n=2), answered("a", 5), answered("a", 9, reason="length"), streamed
    )
    assert lengths(rows) == {"chatcmpl-a": {"length": [5, 9]}}
    assert reasons(rows) == ["request chatcmpl-b: its streamed answers can't be told apart"]


def test_what_has_no_answer_is_told(tmp_path: Path) -> None:
    """Refused, broken off, still running, or of an API whose answers vLLM does not print: left out, each with why."""
    completion = [
        f'{DEBUG}Request c JSON body: {{"model": "m", "prompt": "x", "max_tokens": 5}}',
        f"{DEBUG}Request cmpl-c-0 details: prompt: 'x', prompt_token_ids: [3], prompt_embeds shape: None.",
        f"{INFO}Received request cmpl-c-0: params: {params(5)}, lora_request: None.",
    ]
    rows = imported(tmp_path, asked("a"), answered("a", 3, reason="abort"), asked("b")[:1], completion)
    assert reasons(rows) == [
        "request chatcmpl-a: it was broken off",
        "request b: its answer is not in the log",
        "request cmpl-c-0: vLLM prints no answers of /v1/completions",
    ]


def test_a_log_that_begins_too_late(tmp_path: Path) -> None:
    """An answer whose request stood in an earlier log has no prompt: told once, streamed or not."""
    rows = imported(tmp_path, answered("a", 3), piece("b", 1, "x"), piece("b", 1, "x"), stream_end("b"))
    assert reasons(rows) == [f"request chatcmpl-{name}: its prompt is not in the log" for name in "ab"]


def test_a_log_without_details_says_what_to_do(tmp_path: Path) -> None:
    """At the level INFO a server prints neither prompts nor tokens."""
    rows = imported(tmp_path, asked("a")[2:], answered("a", 3)[1:], asked("b"), answered("b", 3)[1:])
    assert reasons(rows) == [
        f"request chatcmpl-{name}: the log has no {what}: run the server with VLLM_LOGGING_LEVEL=DEBUG"
        for name, what in (("a", "prompts"), ("b", "tokens"))
    ]


def test_what_the_server_cut_is_left_out(tmp_path: Path) -> None:
    """--max-log-len cuts prompts and lists of tokens: neither half a prompt nor too small a length is taken, whether
    the server said so at its start or a prompt that it cut shows it."""
    server = [f"{INFO}non-default args: {{'max_log_len': 90, 'port': 1}}"]
    short = [{"role": "user", "content": "x"}]
    answers = [*asked("b", short), *answered("b", 90), *asked("c", short), *answered("c", 89)]
    body, *rest = asked("a")
    cut = [body[: len(f"{DEBUG}Request a JSON body: ") + 90], *rest, *answered("a", 3)]
    no_prompt = "request chatcmpl-a: its prompt was cut at 90 characters (--max-log-len)"
    no_tokens = "request chatcmpl-b: its tokens were cut at 90 (--max-log-len)"
    for parts, expected in (([server, answers], [no_tokens]), ([cut, answers], [no_prompt, no_tokens])):
        rows = imported(tmp_path, *parts)
        assert reasons(rows) == expected
        assert lengths(rows) == {"chatcmpl-c": {"length": 89}}


def test_logs_of_older_servers(tmp_path: Path) -> None:
    """They have all in INFO lines, and the prompt as the chat template made it."""
    text = 'USER: It\'s "cold", params: SamplingParams(n=9, max_tokens=9) ASSISTANT:'
    old = "INFO 05-22 16:35:59 [logger.py:39] "
    rows = imported(
        tmp_path,
        [
            f"{old}Received request chatcmpl-a: prompt: {text!r}, params: {params(512, stop=('max_tokens=3',))}, "
            "prompt_token_ids: None, lora_request: None, prompt_adapter_request: None.",
            f"{old}Generated response chatcmpl-a: output: 'Yes.', output_token_ids: (1, 2, 3), finish_reason: stop",
        ],
    )
    assert [row.to_json() for row in rows if isinstance(row, LengthRow)] == [
        {"id": "chatcmpl-a", "prompt": text, "length": 3, "finish_reason": "stop", "max_tokens": 512}
    ]


def test_colours_are_no_part_of_a_line(tmp_path: Path) -> None:
    """A log from a terminal is read like any other."""
    coloured = [f"\x1b[0;36m(APIServer pid=1)\x1b[0;0m {line}" for line in [*asked("a"), *answered("a", 3)]]
    assert lengths(imported(tmp_path, coloured)) == {"chatcmpl-a": {"length": 3}}
