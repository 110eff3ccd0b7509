import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.engines.transformers import prompts as prompts_module
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.engines.transformers.prompts import Prompts
from lengthwise.errors import RequestError
from lengthwise.types import ErrorInfo, Prepared, Request

CONTEXT = 40


def loaded(encode, context_tokens=CONTEXT):
    return LoadedModel(None, None, "m", context_tokens, (1,), encode)


def words(request):
    if "bad" in request.text:
        raise RequestError("invalid_request", "bad")
    return list(range(len(request.text.split())))


def text_of(num_tokens):
    return " ".join(["w"] * num_tokens)


@given(st.integers(0, 60), st.none() | st.integers(1, 60), st.integers(1, 60))
def test_prompt_and_answer_always_fit_into_the_context(num_tokens, max_tokens, default):
    """A limit that was asked for is kept or refused, never changed; a default is clamped; there is room for one."""
    (found,) = Prompts(loaded(words), default).prepare([Request("r", text_of(num_tokens), max_tokens=max_tokens)])
    if isinstance(found, Prepared):
        assert found.prompt_tokens == num_tokens
        assert 1 <= found.max_tokens <= CONTEXT - num_tokens
        assert found.max_tokens == (max_tokens or min(default, CONTEXT - num_tokens))
    else:
        assert num_tokens == 0 or num_tokens + (max_tokens or 1) > CONTEXT


def test_a_limit_beyond_the_context_names_both_numbers_and_the_way_out():
    """The user sees what was asked, what the prompt takes, and what would do."""
    (error,) = Prompts(loaded(words), 10).prepare([Request("r", text_of(15), max_tokens=26)])
    assert isinstance(error, ErrorInfo)
    assert error.type == "context_length_exceeded"
    assert all(part in error.message for part in ("26", "15", "40", "at most 25"))


def test_a_prompt_that_fills_the_context_is_an_error():
    """There must be room for one token."""
    at_limit, beyond = Prompts(loaded(words), 10).prepare([Request("a", text_of(39)), Request("b", text_of(40))])
    assert at_limit == Prepared(39, 1)
    assert isinstance(beyond, ErrorInfo)


def test_fields_of_the_api_that_nobody_honours_are_refused_by_name():
    """An answer without them would be another one than was asked for."""
    asked = Request("a", "x", api_fields={"tools": [1], "logprobs": True})
    found = Prompts(loaded(words), 10).prepare([asked, Request("b", "x")])
    message = "logprobs is True, which this engine can't honour; leave it out, or let a server answer."
    assert found == [ErrorInfo("unsupported_parameter", message), Prepared(1, 10)]


def test_one_bad_request_leaves_the_others():
    """Results stand in order, the error at its place."""
    found = Prompts(loaded(words), 10).prepare([Request("a", "x"), Request("b", "bad"), Request("c", "x y")])
    assert found == [Prepared(1, 10), ErrorInfo("invalid_request", "bad"), Prepared(2, 10)]


def test_ids_are_kept_until_they_are_forgotten():
    """Between prepare and the end a prompt is encoded once."""
    encoded = []

    def encode(request):
        encoded.append(request.id)
        return words(request)

    prompts = Prompts(loaded(encode), 10)
    request = Request("a", "x y z")
    prompts.prepare([request])
    assert prompts.token_ids(request) == prompts.token_ids(request) == [0, 1, 2]
    assert encoded == ["a"]
    prompts.forget("a")
    prompts.forget("a")
    assert prompts.token_ids(request) == [0, 1, 2]
    assert encoded == ["a", "a"]


def test_what_is_kept_is_bounded(monkeypatch):
    """Beyond the bound ids are encoded again, and forgetting makes room."""
    monkeypatch.setattr(prompts_module, "MAX_KEPT_TOKENS", 4)
    encoded = []
    prompts = Prompts(loaded(lambda request: encoded.append(request.id) or words(request)), 10)
    first, second = Request("a", "1 2 3"), Request("b", "1 2")
    prompts.prepare([first, second])
    assert prompts.token_ids(second) == [0, 1]
    prompts.forget("a")
    prompts.prepare([second])
    prompts.token_ids(second)
    assert encoded == ["a", "b", "b", "b"]


def test_a_batch_gives_the_ids_that_one_request_gives(tiny_tokenizer):
    """Encoding in one batch changes nothing, whatever lengths stand side by side."""
    from lengthwise.engines.transformers.templates import PromptEncoder

    encode = PromptEncoder(tiny_tokenizer, None)
    requests = [Request(str(n), "A list of fruits. " * n) for n in range(1, 8)]
    prompts = Prompts(loaded(encode, context_tokens=10_000), 10)
    prompts.prepare(requests)
    assert [prompts.token_ids(request) for request in requests] == [encode(request) for request in requests]


@pytest.mark.parametrize("text", ["Hello", "x " * 500])
def test_a_long_prompt_prints_no_warning_of_the_tokenizer(tiny_tokenizer, capfd, text):
    """Prompts that are too long are error rows; the tokenizer's own warning would say it twice."""
    from lengthwise.engines.transformers.templates import PromptEncoder

    Prompts(loaded(PromptEncoder(tiny_tokenizer, None)), 10).prepare([Request("r", text)])
    assert "longer than" not in "".join(capfd.readouterr())
