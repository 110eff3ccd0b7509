"""What all contenders have in common: requests, where their answers end, the model, and the memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan

from lengthwise.benchmarks.tables import workload_hash
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.engines.transformers.prompts import Prompts
from lengthwise.errors import UsageError
from lengthwise.learning.data import LengthData
from lengthwise.types import Request

BATCH = 16  # rows: the paper's vanilla setting (benchmark section), and what most scripts take

Tokens = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Workload:
    """Requests that are answered greedily, up to `max_tokens` tokens each. `lengths`: how many tokens each answer has,
    by id, whatever the model writes; None: answers end where the model ends them."""

    requests: tuple[Request, ...]
    max_tokens: int
    lengths: Mapping[str, int] | None = None

    @property
    def mode(self) -> str:
        return "natural" if self.lengths is None else "recorded"

    @property
    def sha256(self) -> str:
        """Of prompts, and lengths where they are given."""
        prompts = workload_hash(self.requests)
        if self.lengths is None:
            return prompts
        lengths = json.dumps([self.lengths[request.id] for request in self.requests])
        return hashlib.sha256(f"{prompts}{lengths}".encode()).hexdigest()

    def longest(self, requests: Sequence[Request]) -> int:
        """Tokens until the last of them must have ended: recorded lengths tell, else the limit does."""
        if self.lengths is None:
            return self.max_tokens
        return max(self.lengths[request.id] for request in requests)

    def own_tokens(self, request: Request, written: Sequence[int], eos_token_ids: Sequence[int]) -> Tokens:
        """What of `written`, which may go on behind the answer's end, is the answer."""
        if self.lengths is not None:
            return tuple(written[: self.lengths[request.id]])
        ends = [written.index(token) for token in eos_token_ids if token in written]
        return tuple(written[: min(ends) + 1] if ends else written)


def recorded_workload(data: LengthData, max_tokens: int) -> Workload:
    """Each request as long as its first recorded answer, cut at `max_tokens`. Raises UsageError on doubled ids."""
    requests = tuple(Request(one.id, one.prompt, is_raw=one.is_raw) for one in data.requests)
    lengths: dict[str, int] = {}
    for request, row in zip(requests, data.lengths.tolist(), strict=True):
        if request.id in lengths:
            raise UsageError(f"{data.name} has the id {request.id!r} twice; lengths are recorded by id.")
        first = next(length for length in row if not isnan(length))
        lengths[request.id] = min(max_tokens, round(first))
    return Workload(requests, max_tokens, lengths)


@dataclass(frozen=True, eq=False)
class Setup:
    """The model, where another process finds it, and what all contenders may take: `kv_tokens` of prompts and answers
    at once, `max_rows` requests at once where they are free to choose. `longest_prompt` in tokens."""

    loaded: LoadedModel
    model_path: str
    workload: Workload
    longest_prompt: int
    kv_tokens: float
    max_rows: int

    @property
    def request_tokens(self) -> int:
        """The most that one request may take: the longest prompt, and the limit."""
        return self.longest_prompt + self.workload.max_tokens

    @property
    def batch_rows(self) -> int:
        """Rows of a batch whose memory must do for the worst case: BATCH, or fewer where the budget is smaller."""
        return int(max(1, min(BATCH, self.kv_tokens // self.request_tokens)))

    def encoded(self, requests: Sequence[Request]) -> list[list[int]]:
        """Prompts as token ids, in order."""
        prompts = Prompts(self.loaded, self.workload.max_tokens)
        prompts.prepare(requests)
        return [prompts.token_ids(request) for request in requests]

    def text(self, tokens: Sequence[int]) -> str:
        return str(self.loaded.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def num_pages(self, page_tokens: int) -> int:
        """Pages of a paged cache that hold the budget; at least one request's."""
        pages = -(-self.request_tokens // page_tokens)
        return int(max(pages, min(self.kv_tokens, self.max_rows * self.request_tokens) // page_tokens))


def kv_budget(longest_prompt: int, max_tokens: int, given: int | None) -> int:
    """Key/value tokens for every contender: as given, else those of BATCH requests at their worst. Raises UsageError on
    a budget that is smaller than one request."""
    request_tokens = longest_prompt + max_tokens
    if given is not None and given < request_tokens:
        raise UsageError(
            f"The budget is {given:,} key/value tokens, and one request may take {request_tokens:,} (a prompt of "
            f"{longest_prompt:,}, an answer of {max_tokens:,}): raise --kv-tokens, or lower --max-tokens."
        )
    return BATCH * request_tokens if given is None else given
