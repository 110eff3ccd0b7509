"""Requests → bodies, bodies → answers, options and keys: all that needs no socket."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.engines.openai.answer import NoAnswer, count_tokens, read_answer
from lengthwise.engines.openai.body import body_of, prepare
from lengthwise.engines.openai.options import ServerOptions
from lengthwise.engines.openai.redact import Redactor
from lengthwise.errors import UsageError
from lengthwise.types import Prepared, Request, SamplingParams

URL = "http://localhost:8000/v1"
OPTIONS = ServerOptions((URL,))


def body(request: Request, options: ServerOptions = OPTIONS) -> dict:
    return json.loads(body_of(request, "m", options, None))


def test_a_plain_request_says_what_servers_have_defaults_for():
    """Temperature, top_p and the limit always; nothing that OpenAI doesn't know, no seed where nothing is drawn."""
    request = Request("r", "Hi", SamplingParams(seed=3))
    messages = [{"role": "user", "content": "Hi"}]
    expected = {"model": "m", "messages": messages, "temperature": 0.0, "top_p": 1.0, "max_tokens": 512}
    assert body(request) == expected


def test_all_that_a_request_sets_is_sent():
    """Sampling under the servers' names, further fields verbatim; a large seed still fits 31 bits."""
    sampling = SamplingParams(0.7, 0.9, 40, 1.1, 0.5, -0.5, ("\n", "END"), 2**40 + 5)
    fields = {"n": 2, "response_format": {"type": "json_object"}, "ignore_eos": True}
    sent = body(Request("r", "Hi", sampling, 9, api_fields=fields))
    assert (
        sent.items()
        >= {
            "temperature": 0.7,
            "top_p": 0.9,
            "top_k": 40,
            "repetition_penalty": 1.1,
            "presence_penalty": 0.5,
            "frequency_penalty": -0.5,
            "seed": 5,
            "max_tokens": 9,
            "n": 2,
            "ignore_eos": True,
        }.items()
    )
    assert sent["stop"] == ["\n", "END"]
    assert sent["response_format"] == {"type": "json_object"}


def test_the_limit_under_its_other_name():
    """`max_completion_tokens` instead of `max_tokens`, not beside it."""
    sent = body(Request("r", "Hi"), ServerOptions((URL,), max_tokens_field="max_completion_tokens", max_tokens=7))
    assert sent["max_completion_tokens"] == 7
    assert "max_tokens" not in sent


def test_further_fields_can_t_change_what_is_asked():
    """The model and the messages are the request's, whatever stands in its further fields."""
    sent = body(Request("r", "Hi", api_fields={"model": "other", "messages": [], "temperature": 2}))
    assert sent["model"] == "m"
    assert sent["messages"][0]["content"] == "Hi"
    assert sent["temperature"] == 0.0


def test_half_a_surrogate_can_be_sent():
    """Text that is no UTF-8 is JSON for all that."""
    assert body(Request("r", "a\ud800b"))["messages"][0]["content"] == "a\ud800b"


def test_prepare_says_what_can_t_be_asked():
    """Raw messages and streams are refused; else the limit is the request's own or the job's."""
    assert prepare(Request("r", "x" * 40), OPTIONS) == Prepared(11, 512)
    assert prepare(Request("r", "x", max_tokens=3), OPTIONS) == Prepared(1, 3)
    assert prepare(Request("r", ({"role": "user", "content": "x"},), is_raw=True), OPTIONS).type == "invalid_request"
    assert prepare(Request("r", "x", api_fields={"stream": True}), OPTIONS).type == "unsupported_parameter"


def reply(**changes: object) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    return json.dumps({"choices": [choice | changes.pop("choice", {})], "usage": usage} | changes).encode()


def test_an_answer_is_read_with_its_whole_body():
    """Text, reason and counts; what a text can't hold stays in `response`."""
    message = {"content": None, "tool_calls": [{"id": "c"}], "reasoning_content": "Hm."}
    found = read_answer("r", reply(choice={"message": message, "finish_reason": "tool_calls"}), 100)
    assert (found.text, found.finish_reason, found.completion_tokens, found.prompt_tokens) == ("", "stop", 7, 5)
    assert found.response["choices"][0]["message"] == message


def test_the_first_choice_is_the_text_and_parts_are_joined():
    """Of several choices the first; content in parts is one text."""
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    assert read_answer("r", reply(choice={"message": {"content": parts}}), 9).text == "Hello"
    assert read_answer("r", b'{"choices": [{"text": "a"}, {"text": "b"}]}', 9).text == "a"


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 90, "total_tokens": 95}, (5, 90)),
        (  # OpenAI, vLLM: thinking is inside
            {
                "prompt_tokens": 5,
                "completion_tokens": 90,
                "total_tokens": 95,
                "completion_tokens_details": {"reasoning_tokens": 64},
            },
            (5, 90),
        ),
        (  # xAI: beside it, and in the total
            {
                "prompt_tokens": 5,
                "completion_tokens": 26,
                "total_tokens": 95,
                "completion_tokens_details": {"reasoning_tokens": 64},
            },
            (5, 90),
        ),
        ({"prompt_tokens": 5, "completion_tokens": 26, "total_tokens": 95}, (5, 90)),  # Gemini: in the total only
        ({"prompt_tokens": 5, "completion_tokens": 26, "reasoning_tokens": 64}, (5, 90)),
        ({"completion_tokens_details": {"reasoning_tokens": 64}}, (None, 64)),
        ({"prompt_tokens": 5}, (5, None)),
        ({"prompt_tokens": 5, "completion_tokens": None, "total_tokens": "many"}, (5, None)),
        ({"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5}, (5, None)),
        (None, (None, None)),
        ([], (None, None)),
    ],
)
def test_thinking_tokens_count_wherever_they_stand(usage, counts):
    """The completion is what was generated, thinking included, and no token twice."""
    assert count_tokens(usage) == counts


def test_tokens_are_estimated_where_a_server_counts_none():
    """Four bytes a token, at least one, at most the limit; an answer at its limit has the limit."""
    assert read_answer("r", b'{"choices": [{"text": "12345678"}]}', 100).completion_tokens == 2
    assert read_answer("r", b'{"choices": [{"text": ""}]}', 100).completion_tokens == 1
    assert read_answer("r", b'{"choices": [{"text": "12345678"}]}', 1).completion_tokens == 1
    limited = b'{"choices": [{"text": "1234", "finish_reason": "length"}]}'
    assert read_answer("r", limited, 100).completion_tokens == 100


@given(
    st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["choices", "message", "content", "text", "usage", "error", "x"]), inner, max_size=4
                )
            ),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_any_body_is_an_answer_or_none(content):
    """Whatever bytes come back: an answer with a text and at least one token, or NoAnswer; nothing else."""
    try:
        found = read_answer("r", content, 50)
    except NoAnswer:
        return
    assert isinstance(found.text, str)
    assert found.completion_tokens >= 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"base_urls": ()}, "No base URL"),
        ({"base_urls": ("localhost:8000/v1",)}, "no address"),
        ({"base_urls": ("ftp://host/v1",)}, "no address"),
        ({"base_urls": ("http://",)}, "no address"),
        ({"base_urls": ("http://host:notaport/v1",)}, "no address"),
        ({"base_urls": ("http://host/v\x011",)}, "no address"),
        ({"base_urls": ("http://host/v1\n",)}, "no address"),
        ({"base_urls": ("http://my host/v1",)}, "no address"),
        ({"base_urls": ("http://host/v1?api-version=1",)}, "leave that out"),
        ({"base_urls": ("http://host/v1/chat/completions",)}, "must end before /chat/completions"),
        ({"base_urls": (URL, URL + "/")}, "given twice"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"concurrency": 10**6}, "concurrency is 1000000"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"timeout_s": 0.0}, "timeout_s is 0.0"),
        ({"timeout_s": float("nan")}, "timeout_s is nan"),
        ({"max_retries": -1}, "max_retries is -1"),
        ({"priority": "up"}, "priority is 'up'"),
        ({"max_tokens_field": "tokens"}, "max_tokens_field is 'tokens'"),
    ],
)
def test_options_that_can_t_be_are_refused(change, said):
    """Each with its value and a way out."""
    with pytest.raises(UsageError, match=said):
        ServerOptions(**{"base_urls": (URL,), **change})


@pytest.mark.parametrize(
    "url", ["http://me:hunter2@host/v1", "https://hunter2@host/v1", "http:/me:hunter2@x", "hunter2@x"]
)
def test_a_password_in_a_url_is_refused_and_not_told(url):
    """The error says what is wrong without the password."""
    with pytest.raises(UsageError, match="password") as caught:
        ServerOptions((url,))
    assert "hunter2" not in str(caught.value)


KEY = "sk-proj-A1b2C3d4E5f6G7h8I9j0"


@given(st.text(max_size=30), st.text(max_size=30), st.sampled_from([KEY, KEY[:12], KEY[:20], f"Bearer {KEY}"]))
def test_no_text_holds_the_key(before, after, shown):
    """Wherever a server repeats the key or its beginning, it is gone, and what is said is one short line."""
    said = Redactor(KEY).text(f"{before}{shown}{after}")
    assert KEY[:12] not in said
    assert "\n" not in said
    assert len(Redactor(KEY).text("x" * 1000)) <= 301


def escaped(text: str, rng: random.Random) -> str:
    """`text` as a JSON string may hold it: any character as it is or as an escape."""
    ways = (lambda c: json.dumps(c)[1:-1], lambda c: f"\\u{ord(c):04x}", lambda c: f"\\u{ord(c):04X}")
    return "".join("\\/" if c == "/" and rng.random() < 0.5 else rng.choice(ways)(c) for c in text)


@given(
    st.text(st.characters(codec="ascii"), max_size=20),
    st.sampled_from(["sk-a=b/c+d==", 'sk-proj-"\\A1b2C3d4E5f6G7h8', KEY]),
    st.randoms(use_true_random=False),
)
def test_a_key_in_escapes_is_hidden_in_bodies(around, key, rng):
    """However JSON writes the key, it is not in the body that is kept; all else says what it said."""
    body = f'{{"a": "{escaped(around, rng)} {escaped(key, rng)} {escaped(around, rng)}"}}'
    assert json.loads(body)["a"] == f"{around} {key} {around}"
    hidden = Redactor(key).body(body.encode())
    expected = f"{around} {key} {around}".replace(key, "[key]")
    assert json.loads(hidden)["a"] == expected


def test_a_keys_beginning_is_hidden_in_bodies():
    """As in what is said to people."""
    assert Redactor(KEY).body(b'{"a": "You sent ' + KEY[:16].encode() + b'***\\n."}') == b'{"a": "You sent [key]\\n."}'


def test_a_stream_of_events_is_named():
    """A server that streams without being asked: the error says so."""
    with pytest.raises(NoAnswer, match="stream of events"):
        read_answer("r", b'data: {"choices": []}\n\ndata: [DONE]\n', 9)


def test_a_short_key_is_a_word():
    """ "EMPTY" is hidden where it stands alone and does not tear other words apart; no key hides nothing."""
    redactor = Redactor("EMPTY")
    assert redactor.text("Bearer EMPTY is wrong, EMPTYING is not") == "Bearer [key] is wrong, EMPTYING is not"
    assert redactor.body(b"An EMPTY room") == b"An EMPTY room"
    assert Redactor(None).text("all of it") == "all of it"
    assert KEY not in repr(Redactor(KEY))
