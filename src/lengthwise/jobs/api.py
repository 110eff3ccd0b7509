"""Fields of the OpenAI API beside prompt and sampling: which change an answer, and which may be passed over.

Ignoring one that changes an answer would give other answers than were asked for, so those go with the request, and an
engine that can't honour one refuses it.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from lengthwise.errors import RequestError
from lengthwise.jobs.values import Fields, limit, wrong

# The values that ask for what happens anyway. `tool_choice` is "none" where there are no tools.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "chat_template_kwargs": ({},),
    "echo": (False,),
    "function_call": ("auto",),
    "functions": ([],),
    "ignore_eos": (False,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "min_p": (0, 0.0),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True,),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("auto",),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
}
_CHOICE_OF = {"tool_choice": "tools", "function_call": "functions"}
_LIMITS = ("max_tokens", "max_completion_tokens")
_AMBIGUOUS = {"modalities", "verbosity"}  # columns of data have such names too

# What a row that is no call of the API may have of it; another name is metadata there.
FIELDS = frozenset(_NEUTRAL.keys() - _AMBIGUOUS | {"max_completion_tokens", "max_new_tokens"})


def asked_of(fields: Fields, names: Set[str]) -> dict[str, Any]:
    """Those of `names` that ask for something, as given. Raises RequestError for a limit under a wrong name."""
    if fields.keys().isdisjoint(names):
        return {}
    given = {
        name: fields[name] for name in fields if name in names and name not in _LIMITS and fields[name] is not None
    }
    if "max_new_tokens" in given:
        raise wrong("max_new_tokens", given["max_new_tokens"], "given as max_tokens")
    asked = {name: value for name, value in given.items() if not _is_neutral(name, value)}
    for choice, of in _CHOICE_OF.items():
        if asked.get(choice) == "none" and of not in asked:
            del asked[choice]
    return asked


def max_tokens(fields: Fields) -> int | None:
    """The limit, under either of the API's names."""
    if "max_completion_tokens" not in fields:
        return limit(fields, "max_tokens")
    old, new = (limit(fields, name) for name in _LIMITS)
    if old is not None and new is not None and old != new:
        raise RequestError(
            "invalid_request", f"max_tokens is {old} and max_completion_tokens {new}: which is the limit? Keep one."
        )
    return old if new is None else new


def _is_neutral(name: str, value: Any) -> bool:
    return any(type(value) is type(one) and value == one for one in _NEUTRAL.get(name, ()))
