"""OpenAI Batch in: each call, each line that is none beside good ones."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.engines.openai.body import body_of, prepare
from lengthwise.engines.openai.options import ServerOptions
from lengthwise.jobs.ids import named_rows
from lengthwise.jobs.lines import Line
from lengthwise.jobs.rows import Row, read_row, row_id_of
from lengthwise.jobs.sources import open_source
from lengthwise.types import ErrorInfo, Prepared, Request, SamplingParams

DEFAULTS = SamplingParams(temperature=0.5, stop=("END",))
USER = {"role": "user", "content": "Hi"}
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def call(url: str = CHAT, **body: Any) -> dict[str, Any]:
    prompt = {"messages": [USER]} if url == CHAT else {"prompt": "Once"}
    return {"custom_id": "r-1", "method": "POST", "url": url, "body": {"model": "gpt-4o-mini", **prompt, **body}}


def row_of(line: object) -> Row:
    return read_row(Line(7, json.dumps(line)), "openai-batch", DEFAULTS)


def request_of(line: object) -> Request:
    content = row_of(line).content
    assert isinstance(content, Request), content
    return content


class TestCalls:
    """A call becomes a request."""

    def test_chat(self) -> None:
        """The messages as they are, under the custom_id; what the body does not say, the job says."""
        assert row_of(call()) == Row(7, "r-1", Request("r-1", (USER,), DEFAULTS), True, {})

    @pytest.mark.parametrize("prompt", ["Once upon", ["Once upon"]], ids=["text", "list of one"])
    def test_completions(self, prompt: object) -> None:
        """A text that is continued as it is: no chat template."""
        assert request_of(call(COMPLETIONS, prompt=prompt)) == Request("r-1", "Once upon", DEFAULTS, is_raw=True)

    @pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
    def test_its_own_settings(self, limit: str) -> None:
        """The body's sampling and limit beat the job's; null is left out."""
        own = {"temperature": 1, "top_p": 0.9, "seed": 7, "presence_penalty": 0.5, "frequency_penalty": -0.5}
        request = request_of(call(**own, **{limit: 9}, stop="FIN", logit_bias=None))
        assert request.sampling == SamplingParams(**own, stop=("FIN",))
        assert (request.max_tokens, request.api_fields) == (9, {})
        assert request_of(call(temperature=None, stop=None)).sampling == DEFAULTS

    def test_what_changes_no_answer_is_passed_over(self) -> None:
        """Accounts, caches, speed, and values that ask for what happens anyway."""
        passed = {"user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "flex", "stream": False}
        neutral = {"n": 1, "tools": [], "tool_choice": "none", "modalities": ["text"], "verbosity": "medium"}
        assert request_of(call(**passed, **neutral, response_format={"type": "text"})).api_fields == {}

    def test_what_changes_an_answer_goes_with_the_request(self) -> None:
        """As given, also a server's own fields that the API does not know: it is the engine that decides."""
        asked = {"n": 2, "logprobs": True, "response_format": {"type": "json_object"}, "guided_regex": "a+"}
        asked |= {"verbosity": "low", "tools": [{"type": "function"}], "tool_choice": "none"}
        assert request_of(call(**asked)).api_fields == asked

    def test_a_history_with_tools_and_images_reaches_a_server_as_it_is(self) -> None:
        """The body that is posted has the messages of the line."""
        chat = [
            {
                "role": "user",
                "content": [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": "x"}}],
            },
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {}}]},
            {"role": "tool", "tool_call_id": "1", "content": "4"},
        ]
        tools = [{"type": "function", "function": {"name": "f"}}]
        request = request_of(call(messages=chat, tools=tools))
        options = ServerOptions(base_urls=("http://localhost/v1",))
        assert isinstance(prepare(request, options), Prepared)
        body = json.loads(body_of(request, "m", options, None))
        assert (body["messages"], body["tools"]) == (chat, tools)

    def test_the_documented_shape(self, tmp_path: Path) -> None:
        """Two lines as the API's documentation shows them: the format is found and both are requests."""
        system = {"role": "system", "content": "You are a helpful assistant."}
        (tmp_path / "in.jsonl").write_text(
            "\n".join(
                json.dumps({**call(messages=[system, USER], max_tokens=1000), "custom_id": f"request-{i}"})
                for i in (1, 2)
            )
        )
        source = open_source(tmp_path / "in.jsonl")
        rows = list(named_rows(source, DEFAULTS))
        assert source.format == "openai-batch"
        assert [(row.id, row.is_id_given) for row in rows] == [("request-1", True), ("request-2", True)]
        assert all(isinstance(row.content, Request) and row.content.max_tokens == 1000 for row in rows)


def without(field: str) -> dict[str, Any]:
    return {name: value for name, value in call().items() if name != field}


BAD_LINES = {
    "no custom_id": (without("custom_id"), "invalid_request", "no custom_id"),
    "custom_id a number": ({**call(), "custom_id": 5}, "invalid_request", "custom_id is 5"),
    "custom_id empty": ({**call(), "custom_id": ""}, "invalid_request", "not empty"),
    "custom_id half a surrogate": ({**call(), "custom_id": "\ud800"}, "invalid_encoding", "custom_id"),
    "unknown fields": ({**call(), "b": 1, "a": None}, "invalid_request", "'a', 'b', which no batch line has"),
    "no method": (without("method"), "invalid_request", "method is None"),
    "GET": ({**call(), "method": "GET"}, "invalid_request", "method is 'GET'; it must be POST"),
    "no url": (without("url"), "invalid_request", "url is None"),
    "embeddings": ({**call(), "url": "/v1/embeddings"}, "invalid_request", "must be /v1/chat/completions or"),
    "url a list": ({**call(), "url": []}, "invalid_request", r"url is \[\]"),
    "no body": (without("body"), "invalid_request", "body is None"),
    "body a text": ({**call(), "body": "x"}, "invalid_request", "body is 'x'; it must be an object"),
    "a row of our own": ({"id": "a", "prompt": "x"}, "invalid_request", "no custom_id"),
    "no json": (b"{", "invalid_json", "no JSON"),
    "a list": ([], "invalid_json", "a list"),
    "stream": (call(stream=True), "invalid_request", "stream is True"),
    "no messages": (call(messages=None), "missing_prompt", "no messages"),
    "messages empty": (call(messages=[]), "invalid_request", "at least one"),
    "no content": (call(messages=[{"role": "user", "content": ""}]), "missing_prompt", "empty"),
    "prompt in a chat": (call(prompt="x"), "invalid_request", "body has prompt"),
    "messages to continue": (call(COMPLETIONS, messages=[USER]), "invalid_request", "body has messages"),
    "no prompt": (call(COMPLETIONS, prompt=None), "missing_prompt", "no prompt"),
    "prompt empty": (call(COMPLETIONS, prompt=" "), "missing_prompt", "prompt is empty"),
    "prompts": (call(COMPLETIONS, prompt=["a", "b"]), "invalid_request", "give each prompt a line"),
    "no prompts": (call(COMPLETIONS, prompt=[]), "invalid_request", "one text"),
    "tokens": (call(COMPLETIONS, prompt=[1, 2]), "invalid_request", "texts instead of tokens"),
    "one token": (call(COMPLETIONS, prompt=[1]), "invalid_request", "prompt is 1"),
    "lists of tokens": (call(COMPLETIONS, prompt=[[1, 2]]), "invalid_request", "texts instead of tokens"),
    "prompt an object": (call(COMPLETIONS, prompt={}), "invalid_request", "must be a text"),
    "two limits": (call(max_tokens=5, max_completion_tokens=6), "invalid_request", "which is the limit"),
    "limit 0": (call(max_completion_tokens=0), "invalid_request", "1 or more"),
    "temperature text": (call(temperature="hot"), "invalid_request", "a number"),
    "temperature nan": (call(temperature=float("nan")), "invalid_request", "nan"),
    "max_new_tokens": (call(max_new_tokens=5), "invalid_request", "given as max_tokens"),
    "a robot": (call(messages=[{"role": "robot", "content": "x"}]), "invalid_request", "role is 'robot'"),
    "many long fields": (
        {**call(), **{"x" * 1000 + str(i): 1 for i in range(9)}},
        "invalid_request",
        r"…, 'x+…, …, wh",
    ),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_an_error_that_names_its_line_and_stops_no_other(tmp_path: Path, name: str) -> None:
    """Each bad line: a stable type, a message with the value, its line, and its custom_id where that can be read."""
    bad, kind, said = BAD_LINES[name]
    line = bad if isinstance(bad, bytes) else json.dumps(bad).encode()
    first, last = (json.dumps({**call(), "custom_id": other}).encode() for other in ("first", "last"))
    (tmp_path / "in.jsonl").write_bytes(b"\n".join([first, line, last]))
    before, row, after = named_rows(open_source(tmp_path / "in.jsonl"), DEFAULTS)
    assert isinstance(row.content, ErrorInfo)
    assert (row.content.type, row.content.line) == (kind, 2)
    assert re.search(said, row.content.message), row.content.message
    assert len(row.content.message) < 400
    has_id = isinstance(bad, dict) and bad.get("custom_id") == "r-1"
    assert (row.id, row.is_id_given) == (("r-1", True) if has_id else ("2", False))
    assert (before.id, after.id) == ("first", "last")
    assert isinstance(before.content, Request)
    assert isinstance(after.content, Request)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
bodies = st.dictionaries(
    st.sampled_from(["model", "messages", "prompt", "n", "stop", "stream", "max_tokens", "tools", "tool_choice", "x"]),
    json_values | st.just([USER]) | st.just("Hi"),
)
lines = st.fixed_dictionaries(
    {},
    optional={
        "custom_id": st.just("r") | json_values,
        "method": st.just("POST") | json_values,
        "url": st.sampled_from([CHAT, COMPLETIONS]) | json_values,
        "body": bodies | json_values,
        "more": json_values,
    },
)


@given(lines)
def test_any_line_is_a_request_or_an_error(line: dict[str, object]) -> None:
    """Whatever stands in a line, reading it raises nothing, and gives a request or an error with its line; its id is
    found sooner, too."""
    read = Line(3, json.dumps(line))
    row = read_row(read, "openai-batch", DEFAULTS)
    assert row_id_of(read, "openai-batch") == (row.id if row.is_id_given else None)
    assert row.is_id_given == (line.get("custom_id") == row.id)
    assert isinstance(row.content, Request) or (row.content.line == 3 and row.content.message)
