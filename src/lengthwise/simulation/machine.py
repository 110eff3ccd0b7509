"""An engine that only counts: rows, steps, tokens in the cache, and the time that they would take."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Literal

from lengthwise.costs import StepCost
from lengthwise.errors import UsageError
from lengthwise.simulation.cost import steps_s, steps_until
from lengthwise.simulation.prefixes import BLOCK_TOKENS, Prefix, PrefixCache
from lengthwise.types import RunningRequest

Memory = Literal["reserve", "preempt", "planned"]

WATERMARK = 0.01  # of the memory is left free when a row enters beside others: vLLM's setting, against rows that come
# and go at once


@dataclass(frozen=True)
class EngineModel:
    """What is simulated. Raises UsageError on a value out of range.

    Memory that is short can be kept in three ways. `reserve`: a row starts when its prompt and its cap fit beside what
    others have reserved (static batches). `preempt`: a row enters when what it has fits, and when the cache is full,
    the youngest row is put back and reads all of its tokens again later (vLLM); what to start next is asked for one by
    one, so this is for policies that fill rows as they come free. `planned`: the same, but who starts is up to the
    policy, which looks ahead (our own engine).
    """

    slots: int = 64
    kv_tokens: float = math.inf
    memory: Memory = "preempt"
    chunk_tokens: int | None = None  # of a step, for writing rows and pieces of prompts; None: prompts are read alone
    prefix_cache_tokens: int = 0  # of prompts that were read; what begins alike is not read again. 0: there is none
    cost: StepCost = field(default_factory=StepCost)
    intake_s: float = 0.0  # no step runs while those who came since the last are taken in

    def __post_init__(self) -> None:
        if not 0 <= self.intake_s < math.inf:
            raise UsageError(f"intake_s is {self.intake_s}; it must be a number of seconds, 0 or more.")
        if self.slots < 1:
            raise UsageError(f"slots is {self.slots}; an engine needs at least 1.")
        if not self.kv_tokens >= 1:
            raise UsageError(f"kv_tokens is {self.kv_tokens}; a cache holds at least 1 token.")
        if self.chunk_tokens is not None and self.chunk_tokens <= self.slots:
            raise UsageError(f"chunk_tokens is {self.chunk_tokens}; a step of {self.slots} rows needs more than that.")
        if self.prefix_cache_tokens and self.prefix_cache_tokens < BLOCK_TOKENS:
            raise UsageError(
                f"prefix_cache_tokens is {self.prefix_cache_tokens}; a cache holds whole blocks of prompts, so "
                f"{BLOCK_TOKENS} or more, or 0 for none."
            )

    @property
    def is_preempting(self) -> bool:
        return self.memory != "reserve" and self.kv_tokens < math.inf


class MachineRow(RunningRequest):
    """A started request. `num_tokens` is always what it has by now."""

    __slots__ = (
        "_machine",
        "end_tokens",
        "first_step",
        "index",
        "is_gone",
        "prefix",
        "unread_tokens",
        "written_tokens",
    )

    def __init__(
        self,
        machine: Machine,
        index: int,
        id: str,
        prompt: int,
        written: int,
        cap: int,
        end: int,
        prefix: Prefix = (),
    ) -> None:
        self.id, self.prompt_tokens, self.cap, self.started_s = id, prompt, cap, machine.now_s
        self.index = index
        self.written_tokens = written  # when it was started
        self.end_tokens = end  # the answer's tokens when it leaves
        self.unread_tokens = prompt + written
        self.prefix = prefix
        self.first_step: int | None = None  # at which its answer would have begun, had it always run; None: not yet
        self.is_gone = False
        self._machine = machine

    @property
    def num_tokens(self) -> int:  # type: ignore[override]
        return self.written_tokens if self.first_step is None else self._machine.num_steps - self.first_step


class Machine:
    """Started rows enter (their tokens are read), write a token a step, and leave. Between events time is worked out,
    not counted."""

    def __init__(self, model: EngineModel) -> None:
        self.now_s = 0.0
        self.num_steps = 0
        self.num_row_steps = 0
        self.num_read_tokens = 0
        self.num_cached_tokens = 0  # that a prefix cache saved reading
        self.running: dict[str, MachineRow] = {}  # all that were started, in that order
        self._model, self._cost = model, model.cost
        self._is_preempting = model.is_preempting
        self._prefixes = PrefixCache(model.prefix_cache_tokens) if model.prefix_cache_tokens else None
        self._entering: deque[MachineRow] = deque()  # nothing of them is read
        self._entering_tokens = 0
        self._reading: deque[MachineRow] = deque()  # in chunks
        self._unread_tokens = 0  # of those
        self._num_writing = 0
        self._num_begun = 0  # tells entries of `_ends` apart
        self._context_tokens = 0  # in the cache
        self._ends: list[tuple[int, int, MachineRow]] = []

    def start(self, row: MachineRow) -> None:
        self.running[row.id] = row
        self._entering.append(row)
        self._entering_tokens += row.unread_tokens

    @property
    def is_door_free(self) -> bool:
        """All that was started fits: another may be started (`preempt`)."""
        return self._fits(self._entering_tokens + 1)

    def run(self, until_s: float) -> list[MachineRow]:
        """Work until rows leave, or to the end of the step in which `until_s` falls, at least a step; which left, with
        their tokens."""
        while True:
            self._enter()
            num = self._num_until_change()
            if num < 1:
                return [self._youngest()]
            self._work(num, until_s)
            left = self._ended()
            if left or self.now_s >= until_s:
                return left

    def put_back(self, row: MachineRow) -> None:
        """Take a row out, wherever it is; `num_tokens` is what it has."""
        if row.first_step is None and row in self._entering:
            self._entering.remove(row)
            self._entering_tokens -= row.unread_tokens
        elif row.first_step is None:
            self._reading.remove(row)
            self._unread_tokens -= row.unread_tokens
            self._context_tokens -= row.prompt_tokens + row.written_tokens - row.unread_tokens
        else:
            self._num_writing -= 1
            self._context_tokens -= row.prompt_tokens + row.num_tokens
        self._let_go(row)

    def _let_go(self, row: MachineRow) -> None:
        row.written_tokens, row.first_step, row.is_gone = row.num_tokens, None, True
        del self.running[row.id]

    # -- entering ----------------------------------------------------------------------------------------------

    def _fits(self, num_tokens: int) -> bool:
        """Beside what is there. Where nothing is, anything does."""
        if not self._is_preempting or not (self._num_writing or self._reading):
            return True
        used = self._context_tokens + self._unread_tokens + self._num_writing
        return used + num_tokens <= (1 - WATERMARK) * self._model.kv_tokens

    def _enter(self) -> None:
        """Let rows in, as far as they fit, first come first served."""
        if not self._entering:
            return
        num_before = len(self._entering)
        while self._entering and self._fits(self._entering[0].unread_tokens + 1):
            row = self._entering.popleft()
            self._entering_tokens -= row.unread_tokens
            if self._prefixes is not None:
                self._find(row, self._prefixes)
            self._unread_tokens += row.unread_tokens
            if row.unread_tokens:
                self._reading.append(row)
            else:
                self._begin(row)
        if len(self._entering) < num_before and self._model.chunk_tokens is None:
            self.now_s += self._cost.read_fixed_s + self._unread_tokens * self._cost.read_token_s
            self._read(self._unread_tokens)

    def _find(self, row: MachineRow, prefixes: PrefixCache) -> None:
        """What others have read of its prompt, or will have before its turn comes, is there."""
        num_tokens = prefixes.read(row.prefix, row.prompt_tokens)
        row.unread_tokens -= num_tokens
        self._context_tokens += num_tokens
        self.num_cached_tokens += num_tokens

    def _read(self, num_tokens: int) -> None:
        """Of those that read, the first so many tokens; whoever has read all begins to write."""
        self._unread_tokens -= num_tokens
        self._context_tokens += num_tokens
        self.num_read_tokens += num_tokens
        while self._reading and self._reading[0].unread_tokens <= num_tokens:
            row = self._reading.popleft()
            num_tokens -= row.unread_tokens
            row.unread_tokens = 0
            self._begin(row)
        if self._reading:
            self._reading[0].unread_tokens -= num_tokens

    def _begin(self, row: MachineRow) -> None:
        """All of it is read: it writes from the next step on."""
        row.first_step = self.num_steps - row.written_tokens
        self._num_writing += 1
        self._num_begun += 1
        heappush(self._ends, (row.first_step + row.end_tokens, self._num_begun, row))

    # -- steps -------------------------------------------------------------------------------------------------

    @property
    def _chunk(self) -> int:
        """Tokens of prompts that are read in the next step."""
        if not self._reading or self._model.chunk_tokens is None:
            return 0
        return min(self._model.chunk_tokens - self._num_writing, self._unread_tokens)

    def _num_until_change(self) -> int:
        """Steps until a row ends, has read its prompt, or the cache is full."""
        ends = self._ends
        while ends and ends[0][2].is_gone:
            heappop(ends)
        num: float = ends[0][0] - self.num_steps if ends else math.inf
        if self._reading:
            num = min(num, max(1, self._reading[0].unread_tokens // self._chunk))
        if self._is_preempting and self._num_writing:
            room = self._model.kv_tokens - self._context_tokens - self._unread_tokens
            num = min(num, room // self._num_writing)
        assert num < math.inf, "nothing runs, so nothing changes"
        return int(num)

    def _work(self, num: int, until_s: float) -> None:
        """So many steps, or fewer if `until_s` comes before."""
        cost, chunk = self._cost, self._chunk if self._reading else 0
        writing = self._num_writing
        first_s = cost.step_fixed_s + writing * cost.step_row_s + self._context_tokens * cost.step_context_s
        first_s += chunk * cost.read_token_s
        growth_s = (writing + chunk) * cost.step_context_s
        taken_s = steps_s(num, first_s, growth_s)
        if self.now_s + taken_s > until_s:
            num = min(num, steps_until(until_s - self.now_s, first_s, growth_s))
            taken_s = steps_s(num, first_s, growth_s)
        self.now_s += taken_s
        self.num_steps += num
        self.num_row_steps += num * writing
        self._context_tokens += num * writing
        if chunk:
            self._read(num * chunk)

    def _ended(self) -> list[MachineRow]:
        ends, num_steps, left = self._ends, self.num_steps, []
        while ends and ends[0][0] <= num_steps:
            row = heappop(ends)[2]
            if not row.is_gone:
                self._num_writing -= 1
                self._context_tokens -= row.prompt_tokens + row.num_tokens
                self._let_go(row)
                left.append(row)
        return left

    def _youngest(self) -> MachineRow:
        """The row that entered last, put back."""
        row = next(row for row in reversed(self.running.values()) if row not in self._entering)
        assert self._num_writing + len(self._reading) > 1, f"{row.id} alone is larger than the cache"
        self.put_back(row)
        return row
