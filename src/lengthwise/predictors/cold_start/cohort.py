"""The answers that a run learns from while it goes on: a random sample of what was started, finished or not.

Short answers finish first, so what is finished says too little of long ones. Therefore a member is in from its start,
and one that is not finished counts as censored: it is at least as long as what is written of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lengthwise.predictors.residuals import Doubles
from lengthwise.predictors.terms import MAX_PART_CHARACTERS, clip, prompt_text
from lengthwise.types import Request

MAX_CHARACTERS = 2 * MAX_PART_CHARACTERS  # of a prompt: no predictor reads more


@dataclass(frozen=True, eq=False)
class Examples:
    """n answers: `requests`, `lengths` in tokens, `is_censored` where an answer is at least so long, and `numbers`,
    which say how many were started before each."""

    requests: tuple[Request, ...]
    lengths: Doubles
    is_censored: NDArray[np.bool_]
    numbers: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.requests)

    def __getitem__(self, rows: NDArray[np.intp]) -> Examples:
        requests = tuple(self.requests[row] for row in rows)
        return Examples(requests, self.lengths[rows], self.is_censored[rows], self.numbers[rows])


@dataclass(slots=True)
class _Member:
    number: int
    request: Request
    num_tokens: int = 0  # 0: it has not ended
    is_cut: bool = False  # by its limit
    is_lost: bool = False  # it ended without an answer


class Cohort:
    """Requests from their start on, `max_members` at most: when there were more, each stays with the same chance."""

    def __init__(self, max_members: int, seed: int) -> None:
        self.num_begun = 0
        self.num_ended = 0  # with an answer
        self._max_members = max_members
        self._rng = np.random.default_rng(seed)
        self._members: list[_Member] = []
        self._open: dict[str, _Member] = {}

    def begin(self, request: Request) -> None:
        member = _Member(self.num_begun, slim(request))
        self.num_begun += 1
        self._open[request.id] = member
        if len(self._members) < self._max_members:
            self._members.append(member)
        elif (place := int(self._rng.integers(self.num_begun))) < self._max_members:
            self._members[place] = member

    def end(self, request: Request, num_tokens: int, is_cut: bool) -> None:
        if request.id not in self._open:
            self.begin(request)
        member = self._open.pop(request.id)
        member.num_tokens, member.is_cut = num_tokens, is_cut
        self.num_ended += 1

    def lose(self, request_id: str) -> None:
        """It ended without an answer, or is no longer in the run."""
        member = self._open.pop(request_id, None)
        if member is not None:
            member.is_lost = True

    def lose_unfinished(self) -> None:
        for name in list(self._open):
            self.lose(name)

    def num_open_of(self, num: int) -> int:
        """How many of the first `num` that were started have not ended."""
        return sum(member.number < num for member in self._open.values())

    def by_progress(self, written: Mapping[str, int]) -> Examples:
        """All members, where `written` has the tokens of those that have not ended."""
        open_tokens = {member.number: written.get(name, 0) for name, member in self._open.items()}
        return self._examples(self._members, open_tokens)

    def of_first(self, num: int) -> Examples:
        """The first `num` that were started, where nobody says how far an answer has got.

        One that has not ended has been running for longer than all that were started after it and have ended, and rows
        of one server write about equally fast: it is at least as long as the longest of those.
        """
        open_tokens: dict[int, int] = {}
        longest = 0
        members = sorted(self._members, key=lambda member: member.number)
        for member in reversed(members):
            longest = max(longest, member.num_tokens)
            open_tokens[member.number] = longest
        return self._examples([member for member in members if member.number < num], open_tokens)

    def _examples(self, members: list[_Member], open_tokens: Mapping[int, int]) -> Examples:
        """Those of which nothing is written yet say nothing, and are left out."""
        known = [
            (member, member.num_tokens or open_tokens.get(member.number, 0)) for member in members if not member.is_lost
        ]
        known = [(member, num_tokens) for member, num_tokens in known if num_tokens]
        return Examples(
            tuple(member.request for member, _ in known),
            np.array([num_tokens for _, num_tokens in known], np.float64),
            np.array([member.is_cut or not member.num_tokens for member, _ in known], np.bool_),
            np.array([member.number for member, _ in known], np.intp),
        )


def slim(request: Request) -> Request:
    """A request with what predictors look at, so that thousands of them need little memory."""
    text = prompt_text(request)
    is_small = len(text) <= MAX_CHARACTERS and (isinstance(request.prompt, str) or _is_small(request.prompt))
    prompt = request.prompt if is_small else clip(text)
    fields = request.api_fields if _is_small(request.api_fields) else {}
    user = {name: value for name, value in request.metadata.items() if name == "user" and _is_small(value)}
    return replace(request, prompt=prompt, api_fields=fields, metadata=user)


def _is_small(value: object) -> bool:
    """Messages may hold images, and fields anything."""
    return len(repr(value)) <= MAX_CHARACTERS
