import pytest
from jinja2 import TemplateError

from lengthwise.engines.transformers.templates import PromptEncoder, choose_template, is_own_template
from lengthwise.errors import ModelError, RequestError
from lengthwise.types import Request

CHAT = "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}>"


@pytest.fixture
def tokenizer(tiny_tokenizer):
    """The shared tokenizer with a chat template of its own, given back as it was."""
    tiny_tokenizer.chat_template = CHAT
    yield tiny_tokenizer
    tiny_tokenizer.chat_template = None


def chat(*messages):
    return Request("r", tuple({"role": role, "content": content} for role, content in messages))


def encoder(tokenizer, wanted):
    return PromptEncoder(tokenizer, choose_template(tokenizer, wanted))


def test_a_plain_prompt_becomes_one_user_message_when_there_is_a_template(tokenizer):
    """`auto` uses the model's own template, and its start token is written once."""
    ids = encoder(tokenizer, "auto")(Request("r", "Hello"))
    assert tokenizer.decode(ids) == "<s>[user]Hello>"
    assert ids.count(tokenizer.bos_token_id) == 1


def test_none_and_a_model_without_a_template_leave_the_text_as_it_is(tokenizer):
    """The ids are those that the tokenizer gives for the bare text."""
    bare = tokenizer("Hello")["input_ids"]
    assert encoder(tokenizer, "none")(Request("r", "Hello")) == bare
    tokenizer.chat_template = None
    assert encoder(tokenizer, "auto")(Request("r", "Hello")) == bare


@pytest.mark.parametrize("wanted", ["auto", "vicuna", "none"])
def test_a_raw_text_is_continued_as_it_is(tokenizer, wanted):
    """Whatever template there is, with the tokenizer's special tokens; beside requests that get the template."""
    raw, plain = Request("raw", "Hello", is_raw=True), Request("plain", "Hello")
    encode = encoder(tokenizer, wanted)
    bare = tokenizer("Hello")["input_ids"]
    assert encode(raw) == bare
    assert encode.many([plain, raw, plain, raw]) == [encode(plain), bare, encode(plain), bare]
    assert (encode(plain) == bare) == (wanted == "none")


@pytest.mark.parametrize("wanted", ["auto", "none"])
def test_raw_messages_are_refused(tokenizer, wanted):
    """There is no text that they are."""
    request = Request("r", ({"role": "user", "content": "Hi"},), is_raw=True)
    with pytest.raises(RequestError, match="is raw and has chat messages"):
        encoder(tokenizer, wanted)(request)


def test_vicuna_is_the_v1_1_conversation(tokenizer):
    """As FastChat's get_prompt writes it: a system sentence, USER and ASSISTANT, the end token behind each answer."""
    text = encoder(tokenizer, "vicuna").render(chat(("user", "Hi"), ("assistant", "Hello."), ("user", "Bye")))
    assert text == (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions. "
        "USER: Hi ASSISTANT: Hello.</s>USER: Bye ASSISTANT:"
    )


def test_vicuna_starts_with_the_tokenizers_start_token_and_a_given_system_message(tokenizer):
    """A system message replaces the standard one."""
    ids = encoder(tokenizer, "vicuna")(chat(("system", "Be brief."), ("user", "Hi")))
    assert tokenizer.decode(ids) == "<s>Be brief. USER: Hi ASSISTANT:"


def test_a_jinja_file_is_a_template(tokenizer, tmp_path):
    """The path of a file stands for its text."""
    file = tmp_path / "mine.jinja"
    file.write_text("Q {{ messages[0]['content'] }} A")
    assert encoder(tokenizer, str(file)).render(Request("r", "why?")) == "Q why? A"


@pytest.mark.parametrize(("content", "says"), [("{% if %}", "no valid Jinja"), (None, "can't be read")])
def test_a_template_that_is_none_is_a_model_error(tokenizer, tmp_path, content, says):
    """A missing file and a syntax error are found before any request runs."""
    file = tmp_path / "mine.jinja"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ModelError, match=says):
        choose_template(tokenizer, str(file))


def test_what_a_template_refuses_is_an_error_of_that_request(tokenizer):
    """The template's own words reach the user."""
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(RequestError, match="System role not supported") as caught:
        encoder(tokenizer, "auto")(chat(("system", "Be brief."), ("user", "Hi")))
    assert isinstance(caught.value.__cause__, TemplateError)


@pytest.mark.parametrize(
    ("prompt", "type", "says"),
    [
        ("", "invalid_request", "empty"),
        (" \n", "invalid_request", "empty"),
        ((), "invalid_request", "empty"),
        (({"role": "user"},), "invalid_request", "content is None"),
        (({"role": "king", "content": "x"},), "invalid_request", "'king'"),
        (({"role": "king" * 1000, "content": "x"},), "invalid_request", "role .kingking"),
        (({"role": "user", "content": 10**1000},), "invalid_request", "content is 1000"),
        (({"role": "user", "content": "x", "y" * 1000: 1},), "unsupported_parameter", "yyy…"),
        (({"role": "user", "content": [{"type": "y" * 1000}]},), "unsupported_parameter", "yyy…"),
        (({"role": "user", "content": [{"type": "image_url"}]},), "unsupported_parameter", "image_url"),
        (({"role": "assistant", "content": "", "tool_calls": [1]},), "unsupported_parameter", "tool_calls"),
        (({"role": "tool", "content": "4", "tool_call_id": "1"},), "unsupported_parameter", "role 'tool'.* A server"),
        (({"role": "function", "content": "4", "name": "f"},), "unsupported_parameter", "role 'function'"),
        (({"role": "assistant", "content": None, "tool_calls": [{}]},), "unsupported_parameter", "tool_calls"),
        (
            ({"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "file"}]},),
            "unsupported_parameter",
            "file",
        ),
        ("half a pair \ud800", "invalid_request", "Unicode"),
    ],
)
def test_a_prompt_that_cant_be_encoded_says_why(tokenizer, prompt, type, says):
    """Every kind of bad prompt is a RequestError, alone and in a batch, and does not touch its neighbours."""
    encode = encoder(tokenizer, "auto")
    with pytest.raises(RequestError, match=says) as caught:
        encode(Request("bad", prompt))
    assert caught.value.type == type
    assert len(str(caught.value)) < 300
    before, bad, after = encode.many([Request("1", "One"), Request("bad", prompt), Request("2", "Two")])
    assert isinstance(bad, RequestError)
    assert (before, after) == (encode(Request("1", "One")), encode(Request("2", "Two")))


def test_a_template_that_repeats_the_prompt_is_cut_short(tokenizer):
    """No error is as long as the prompt that it is about."""
    tokenizer.chat_template = "{{ raise_exception('Not this: ' + messages[0].content) }}"
    with pytest.raises(RequestError, match="Not this: xxx") as caught:
        encoder(tokenizer, "auto")(Request("r", "x" * 10_000))
    assert len(str(caught.value)) < 300


def test_messages_without_a_template_are_an_error_with_a_way_out(tokenizer):
    """A format that the model was not trained on is not invented."""
    with pytest.raises(RequestError, match="vicuna"):
        encoder(tokenizer, "none")(chat(("user", "Hi")))


@pytest.mark.parametrize(
    ("own", "wanted", "is_own"),
    [
        (CHAT, "auto", True),
        (CHAT, "none", False),
        (CHAT, "vicuna", False),
        (None, "auto", True),
        (None, "none", True),
        (None, "vicuna", False),
    ],
)
def test_the_model_s_own_template_is_known_as_such(tokenizer, own, wanted, is_own):
    """What is chosen by name may be the same; then a model's identity is the same too."""
    tokenizer.chat_template = own
    assert is_own_template(tokenizer, choose_template(tokenizer, wanted)) == is_own


def test_text_parts_are_joined(tokenizer):
    """OpenAI's list of parts is taken as far as it is text."""
    request = Request("r", ({"role": "user", "content": [{"type": "text", "text": t} for t in "ab"]},))
    assert encoder(tokenizer, "auto").render(request) == "<s>[user]ab>"


@pytest.mark.parametrize("expression", ["1 // 0", "range(10 ** 9) | list"])
def test_whatever_a_template_fails_with_is_an_error_of_that_request(tokenizer, expression):
    """A template is a program: it may divide by zero, for instance."""
    tokenizer.chat_template = "{% if messages | length > 1 %}{{ " + expression + " }}{% endif %}" + CHAT
    good, bad = encoder(tokenizer, "auto").many([Request("1", "One"), chat(("user", "Hi"), ("user", "Bye"))])
    assert tokenizer.decode(good) == "<s>[user]One>"
    assert isinstance(bad, RequestError)


def test_whatever_a_tokenizer_fails_with_is_an_error_of_that_request(tokenizer, monkeypatch):
    """The others of the batch are encoded."""

    class Failing:
        def __call__(self, texts, **options):
            if "bad" in "".join(texts):
                raise OverflowError("out of range")
            return tokenizer(texts, **options)

    before, bad, after = PromptEncoder(Failing(), None).many([Request(n, n) for n in ("one", "bad", "two")])
    assert "out of range" in str(bad)
    assert [before, after] == tokenizer(["one", "two"])["input_ids"]


def test_a_speaker_s_name_and_a_developer_s_message_reach_the_template(tokenizer):
    """As OpenAI's users give them; what else a message asks for is refused, not dropped."""
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }} {{ m.name }}: {{ m.content }};{% endfor %}"
    named = ({"role": "developer", "content": "x", "refusal": None}, {"role": "user", "content": "y", "name": "Ann"})
    assert encoder(tokenizer, "auto").render(Request("r", named)) == "developer : x;user Ann: y;"
    for odd, says in ({"name": 5}, "name is 5"), ({"audio": {"id": 1}}, "audio"):
        with pytest.raises(RequestError, match=says):
            encoder(tokenizer, "auto").render(Request("r", ({"role": "user", "content": "x", **odd},)))


def test_vicuna_takes_a_developer_s_message_as_the_system_s(tokenizer):
    """It would be dropped otherwise."""
    text = encoder(tokenizer, "vicuna").render(chat(("developer", "Be brief."), ("user", "Hi")))
    assert text == "Be brief. USER: Hi ASSISTANT:"
