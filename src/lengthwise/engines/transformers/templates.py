"""Requests → prompt token ids: the chat template, and the tokenizer.

A plain-text prompt becomes one user message when there is a template, and stays as it is when there is none or when
the request is raw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateSyntaxError
from transformers import PreTrainedTokenizerBase

from lengthwise.errors import ModelError, RequestError, first_line, shown
from lengthwise.types import ROLES, Request

MAX_TOLD_CHARS = 200  # of what a template or a tokenizer says: it may have put the prompt into it
_TOOL_ROLES = ("tool", "function")

# Vicuna v1.1 (FastChat's conversation `vicuna_v1.1`): the start token comes from the tokenizer, not from here.
VICUNA_TEMPLATE = """\
{%- if messages[0]['role'] in ('system', 'developer') -%}
{{- messages[0]['content'] -}}
{%- else -%}
A chat between a curious user and an artificial intelligence assistant. \
The assistant gives helpful, detailed, and polite answers to the user's questions.
{%- endif -%}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{%- set is_after_answer = loop.previtem is defined and loop.previtem['role'] == 'assistant' -%}
{{- ('USER: ' if is_after_answer else ' USER: ') + message['content'] -}}
{%- elif message['role'] == 'assistant' -%}
{{- ' ASSISTANT: ' + message['content'] + eos_token -}}
{%- elif not loop.first -%}
{{- raise_exception('a system message may only come first') -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %} ASSISTANT:{% endif -%}
"""


@dataclass(frozen=True)
class ChatTemplate:
    """A Jinja template. `adds_special_tokens`: the tokenizer puts its start token before the text, because the
    template itself doesn't (Hugging Face templates write their own)."""

    source: str
    adds_special_tokens: bool = False


def choose_template(tokenizer: PreTrainedTokenizerBase, wanted: str) -> ChatTemplate | None:
    """The template that `wanted` means: `auto` (the model's own, if it has one), `none`, `vicuna`, or a Jinja file.

    Raises ModelError when the file can't be read or is no template.
    """
    if wanted == "none":
        return None
    if wanted == "auto":
        return _own_template(tokenizer)
    if wanted == "vicuna":
        return ChatTemplate(VICUNA_TEMPLATE, adds_special_tokens=True)
    return _checked(tokenizer, ChatTemplate(_read_template(Path(wanted))), wanted)


def is_own_template(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate | None) -> bool:
    """Whether `auto` would have chosen this one."""
    own = tokenizer.chat_template
    source = own.get("default") if isinstance(own, dict) else own
    return template == (ChatTemplate(source) if source else None)


@dataclass(frozen=True)
class PromptEncoder:
    """Turns requests into prompt token ids with one tokenizer and one template (None: text as it is).

    `max_token_id` is the last token that the model has, where its tokenizer has more. Calling it encodes one request
    and raises RequestError; `many` encodes in one batch (in parallel threads) and puts the error at the request's
    place.
    """

    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate | None
    max_token_id: int | None = None

    def __call__(self, request: Request) -> list[int]:
        return self._known(self._encode([self.render(request)], self._adds_special_tokens(request))[0])

    def many(self, requests: Sequence[Request]) -> list[list[int] | RequestError]:
        """One entry a request, in order: its ids, or why there are none. Never raises on content."""
        found: dict[int, list[int] | RequestError] = {}
        texts: dict[bool, dict[int, str]] = {False: {}, True: {}}  # what is encoded alike goes together
        for index, request in enumerate(requests):
            try:
                texts[self._adds_special_tokens(request)][index] = self.render(request)
            except RequestError as error:
                found[index] = error
        for adds_special_tokens, alike in texts.items():
            encoded = self._encode_each(list(alike.values()), adds_special_tokens)
            found.update(zip(alike, encoded, strict=True))
        return [found[index] for index in range(len(requests))]

    def render(self, request: Request) -> str:
        """The text that the tokenizer gets. Raises RequestError for what the template or the model can't take."""
        messages = _messages(request)
        if self.template is None or request.is_raw:
            return _plain_text(request)
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages, chat_template=self.template.source, tokenize=False, add_generation_prompt=True
                )
            )
        except Exception as error:  # a template is a program, which may fail in any way
            raise RequestError("invalid_request", f"The chat template refuses these messages: {_cut(error)}") from error

    def _adds_special_tokens(self, request: Request) -> bool:
        return self.template is None or request.is_raw or self.template.adds_special_tokens

    def _encode(self, texts: list[str], adds_special_tokens: bool) -> list[list[int]]:
        try:
            encoded = self.tokenizer(
                texts, add_special_tokens=adds_special_tokens, return_attention_mask=False, verbose=False
            )
        except (TypeError, UnicodeError) as error:
            message = "The prompt holds characters that are no valid Unicode (half a surrogate pair): remove them."
            raise RequestError("invalid_request", message) from error
        except Exception as error:
            message = f"The tokenizer can't take this prompt: {_cut(error)}"
            raise RequestError("invalid_request", message) from error
        return list(encoded["input_ids"])

    def _encode_each(self, texts: list[str], adds_special_tokens: bool) -> list[list[int] | RequestError]:
        """A batch; only if some text in it can't be encoded, one by one."""
        if not texts:
            return []
        try:
            encoded = self._encode(texts, adds_special_tokens)
            return [self._known(token_ids) for token_ids in encoded]
        except RequestError:
            return [self._encode_or_error(text, adds_special_tokens) for text in texts]

    def _encode_or_error(self, text: str, adds_special_tokens: bool) -> list[int] | RequestError:
        try:
            return self._known(self._encode([text], adds_special_tokens)[0])
        except RequestError as error:
            return error

    def _known(self, token_ids: list[int]) -> list[int]:
        if self.max_token_id is not None and max(token_ids, default=0) > self.max_token_id:
            message = f"The prompt gives token {max(token_ids)}; the model has none above {self.max_token_id}."
            raise RequestError("invalid_request", message)
        return token_ids


def _cut(error: BaseException) -> str:
    return first_line(error)[:MAX_TOLD_CHARS]


# -- templates -------------------------------------------------------------------------------------------------


def _own_template(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate | None:
    if not tokenizer.chat_template:
        return None
    try:
        source = tokenizer.get_chat_template()
    except ValueError as error:  # several templates, none of them the default
        raise ModelError(f"The model's chat template can't be chosen: {error} Give one as a Jinja file.") from error
    return _checked(tokenizer, ChatTemplate(source), "of the model")


def _read_template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The chat template {str(path)!r} can't be read ({error}). "
            "It may be 'auto', 'none', 'vicuna' or the path of a Jinja file."
        ) from error


def _checked(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, name: str) -> ChatTemplate:
    try:
        PromptEncoder(tokenizer, template).render(Request("check", "check"))
    except RequestError as error:
        if isinstance(error.__cause__, TemplateSyntaxError):
            raise ModelError(f"The chat template {name} is no valid Jinja template: {error.__cause__}") from error
    return template


# -- messages --------------------------------------------------------------------------------------------------


def _plain_text(request: Request) -> str:
    if isinstance(request.prompt, str):
        return request.prompt
    if request.is_raw:
        raise RequestError("invalid_request", "The request is raw and has chat messages; give a text, or drop is_raw.")
    raise RequestError(
        "invalid_request",
        "The request has chat messages, and this model has no chat template: give 'prompt' instead of 'messages', "
        "or a chat template ('vicuna' or a Jinja file).",
    )


def _messages(request: Request) -> list[dict[str, Any]]:
    """The prompt as chat messages whose content is text. Raises RequestError when it is empty or not text."""
    if isinstance(request.prompt, str):
        messages = [{"role": "user", "content": request.prompt}]
    else:
        messages = [_message(message) for message in request.prompt]
    if not any(message["content"].strip() for message in messages):
        raise RequestError("invalid_request", "The prompt is empty: there is nothing to answer. Give it some text.")
    return messages


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Role and content, and the speaker's name where there is one, for templates that write it."""
    role, name = message.get("role"), message.get("name")
    if role in _TOOL_ROLES:
        raise _unsupported(f"the role {role!r}")
    if role not in ROLES:
        told = f"A message has the role {shown(role)}; it must be one of {', '.join(ROLES)}."
        raise RequestError("invalid_request", told)
    if not isinstance(name, str | None):
        raise RequestError("invalid_request", f"A message's name is {shown(name)}; it must be a text.")
    for field in message.keys() - {"role", "content", "name"}:
        if message[field] not in (None, [], {}):
            raise _unsupported(shown(field))
    return {"role": role, "content": _content(message.get("content"))} | ({} if name is None else {"name": name})


def _content(content: object) -> str:
    """A message's text: a string, or OpenAI's list of parts as far as they are texts."""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "".join(_part(part) for part in content)
    raise RequestError("invalid_request", f"A message's content is {shown(content)}; it must be a text.")


def _part(part: object) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else part
    raise _unsupported(f"a part of type {shown(kind)}")


def _unsupported(what: str) -> RequestError:
    told = f"A message has {what}, which this engine can't honour: it takes and writes texts. A server may."
    return RequestError("unsupported_parameter", told)
