"""Requests → prompt tokens and limits, for every engine that runs a loaded model."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Protocol

from lengthwise.engines.transformers.model import EncodePrompt
from lengthwise.engines.transformers.templates import PromptEncoder
from lengthwise.errors import RequestError
from lengthwise.types import ErrorInfo, Prepared, Request, unsupported_field

# Ids are kept from `prepare` to the end of a request, 4 bytes each, as long as they take less than this: 64 MiB.
# What is beyond is encoded again when it starts (0.1 ms a prompt), so that a million prompts don't fill the memory.
MAX_KEPT_TOKENS = 2**24


class PromptReader(Protocol):
    """What must be known of a model to prepare its requests; its weights are not."""

    @property
    def encode_prompt(self) -> EncodePrompt: ...

    @property
    def context_tokens(self) -> int: ...


class Prompts:
    """Prompt tokens and token limits of requests, by one rule for all.

    A prompt that leaves no room for one token, an empty one, and a `max_tokens` that was asked for and does not
    fit behind the prompt are errors of that request. Without `max_tokens` the limit is `default_max_tokens`,
    clamped to the context.
    """

    def __init__(self, loaded: PromptReader, default_max_tokens: int) -> None:
        self._encode = loaded.encode_prompt
        self._context_tokens = loaded.context_tokens
        self._default_max_tokens = default_max_tokens
        self._kept: dict[str, array[int]] = {}
        self._num_kept_tokens = 0

    def prepare(self, requests: Sequence[Request]) -> list[Prepared | ErrorInfo]:
        """Tokens and limit of each request, in order, or why it can't be run. Keeps the ids for `token_ids`."""
        return [
            self._prepare(request, encoded)
            for request, encoded in zip(requests, self._encode_many(requests), strict=True)
        ]

    def token_ids(self, request: Request) -> list[int]:
        """The prompt's ids, at least one. Raises RequestError where `prepare` says that they can't be had."""
        kept = self._kept.get(request.id)
        return list(kept) if kept is not None else self._encode(request)

    def max_tokens(self, request: Request, prompt_tokens: int) -> int:
        """The most tokens that this request's answer may have. Raises RequestError when it can't have them."""
        room = self._context_tokens - prompt_tokens
        if prompt_tokens < 1:
            raise RequestError("invalid_request", "The prompt gives no token: there is nothing to answer.")
        if room < 1:
            raise RequestError(
                "context_length_exceeded",
                f"The prompt has {prompt_tokens} tokens and the model's context is {self._context_tokens}: no room is "
                "left for an answer. Shorten the prompt.",
            )
        if request.max_tokens is None:
            return min(self._default_max_tokens, room)
        if request.max_tokens > room:
            raise RequestError(
                "context_length_exceeded",
                f"max_tokens is {request.max_tokens}, but behind a prompt of {prompt_tokens} tokens the context of "
                f"{self._context_tokens} has room for {room}. Ask for at most {room}, or leave max_tokens out.",
            )
        return request.max_tokens

    def forget(self, request_id: str) -> None:
        """Drop the ids of a request that has ended; unknown ids are passed over."""
        self._num_kept_tokens -= len(self._kept.pop(request_id, ()))

    def _prepare(self, request: Request, encoded: list[int] | RequestError) -> Prepared | ErrorInfo:
        if isinstance(encoded, RequestError):
            return ErrorInfo.of(encoded)
        if request.api_fields:
            return unsupported_field(request)
        try:
            prepared = Prepared(len(encoded), self.max_tokens(request, len(encoded)))
        except RequestError as error:
            return ErrorInfo.of(error)
        self._keep(request.id, encoded)
        return prepared

    def _keep(self, request_id: str, token_ids: list[int]) -> None:
        self.forget(request_id)
        if self._num_kept_tokens + len(token_ids) <= MAX_KEPT_TOKENS:
            self._kept[request_id] = array("i", token_ids)
            self._num_kept_tokens += len(token_ids)

    def _encode_many(self, requests: Sequence[Request]) -> list[list[int] | RequestError]:
        if isinstance(self._encode, PromptEncoder):
            return self._encode.many(requests)
        return [self._encode_or_error(request) for request in requests]

    def _encode_or_error(self, request: Request) -> list[int] | RequestError:
        try:
            return self._encode(request)
        except RequestError as error:
            return error
