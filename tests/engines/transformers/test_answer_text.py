"""Text that appears token by token is the text of the whole, and ends before the first stop string."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lengthwise.engines.transformers.answer_text import AnswerText

fixed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
texts = st.text(st.sampled_from("ab .<e长度🙂é\n"), max_size=30)


def encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


@fixed
@given(text=texts)
def test_it_grows_to_the_text_of_all_tokens(tiny_tokenizer: Any, text: str) -> None:
    """Characters of several bytes, split over tokens, come whole; what has come never changes."""
    follower = AnswerText(tiny_tokenizer, ["never there"])
    for token in encode(tiny_tokenizer, text):
        before = follower.text
        follower.push(token)
        assert follower.text.startswith(before)
        assert text.startswith(follower.text)
    assert follower.text == text


@fixed
@given(text=texts, stop=st.lists(st.text(st.sampled_from("ab 长🙂"), min_size=1, max_size=3), min_size=1, max_size=3))
def test_it_stops_at_the_first_stop_string(tiny_tokenizer: Any, text: str, stop: list[str]) -> None:
    """As soon as a token has completed one of them; the text ends before the one that begins first."""
    follower = AnswerText(tiny_tokenizer, stop)
    tokens = encode(tiny_tokenizer, text)
    num_pushed = next((i + 1 for i, token in enumerate(tokens) if follower.push(token)), None)
    written = text if num_pushed is None else tiny_tokenizer.decode(tokens[:num_pushed]).rstrip("\ufffd")
    found = [written.find(one) for one in stop if one in written]
    assert follower.is_stopped == bool(found)
    assert follower.text == (written[: min(found)] if found else text)
    if num_pushed is not None:
        assert not any(one in tiny_tokenizer.decode(tokens[: num_pushed - 1]) for one in stop)


@fixed
@given(text=texts, cut=st.integers(0, 40))
def test_it_goes_on_where_an_answer_was_cut(tiny_tokenizer: Any, text: str, cut: int) -> None:
    """Made from the tokens so far, it goes on as if it had seen them come."""
    tokens = encode(tiny_tokenizer, text)
    whole, rest = AnswerText(tiny_tokenizer, ["a "]), AnswerText(tiny_tokenizer, ["a "], tokens[:cut])
    for token in tokens:
        whole.push(token)
    for token in tokens[cut:]:
        rest.push(token)
    assert rest.text.startswith(whole.text) if whole.is_stopped else rest.text == whole.text


def test_special_tokens_are_no_text(tiny_tokenizer: Any) -> None:
    """Neither start, end nor padding is printed."""
    follower = AnswerText(tiny_tokenizer, ["x"])
    for token in (0, *encode(tiny_tokenizer, "ab"), 2, 1):
        follower.push(token)
    assert follower.text == "ab"
