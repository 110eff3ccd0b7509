"""The same engine, a step at a time: what the closed forms must agree with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lengthwise.simulation.machine import WATERMARK, EngineModel
from lengthwise.simulation.prefixes import BLOCK_TOKENS
from lengthwise.simulation.workload import Workload


class Row:
    def __init__(self, index: int, tokens: int, unread: int) -> None:
        self.index, self.tokens, self.unread = index, tokens, unread


def play(workload: Workload, order: Sequence[float], model: EngineModel) -> tuple[np.ndarray, np.ndarray]:
    """(start, end) of each request, the lowest `order` first, rows filled as they come free, nothing cut but for memory
    (`preempt`), what was put back first of all."""
    return _Play(workload, order, model).run()


class _Play:
    def __init__(self, workload: Workload, order: Sequence[float], model: EngineModel) -> None:
        self.work, self.order, self.model, self.cost = workload, order, model, model.cost
        self.now = float(workload.arrival_s[0])
        num = len(workload)
        self.start, self.end = np.full(num, np.nan), np.full(num, np.nan)
        self.fresh = list(range(num))
        self.back: list[int] = []
        self.written = [0] * num
        self.door: list[Row] = []
        self.rows: list[Row] = []  # in the order in which they were started
        self.kept: list[int] = []  # blocks of prompts, the one that was asked for last at the end

    def run(self) -> tuple[np.ndarray, np.ndarray]:
        while np.isnan(self.end).any():
            self.choose()
            self.enter()
            if not self.rows:
                self.now = max(self.now, min(self.work.arrival_s[i] for i in self.fresh))
            elif not self.has_room():
                self.put_youngest_back()
            else:
                self.step()
        return self.start, self.end

    @property
    def in_cache(self) -> int:
        prompts = self.work.prompt_tokens
        return sum(int(prompts[row.index]) + row.tokens - row.unread for row in self.rows)

    @property
    def writing(self) -> list[Row]:
        return [row for row in self.rows if not row.unread]

    def fits(self, tokens: int) -> bool:
        if self.model.memory == "reserve" or not self.rows:
            return True
        unread = sum(row.unread for row in self.rows)
        used = self.in_cache + unread + len(self.writing)
        return used + tokens <= (1 - WATERMARK) * self.model.kv_tokens

    def choose(self) -> None:
        while len(self.rows) + len(self.door) < self.model.slots and self.fits(sum(r.unread for r in self.door) + 1):
            come = [i for i in self.fresh if self.work.arrival_s[i] <= self.now]
            if self.back:
                index = self.back.pop(0)
            elif come:
                index = min(come, key=lambda i: (self.order[i], i))
                self.fresh.remove(index)
                self.start[index] = self.now
            else:
                return
            written = self.written[index]
            self.door.append(Row(index, written, int(self.work.prompt_tokens[index]) + written))

    def enter(self) -> None:
        entered = []
        while self.door and self.fits(self.door[0].unread + 1):
            entered.append(self.door.pop(0))
            self.rows.append(entered[-1])
            entered[-1].unread -= self.found(entered[-1].index)
        if entered and self.model.chunk_tokens is None:
            self.now += self.cost.read_fixed_s + sum(row.unread for row in entered) * self.cost.read_token_s
            for row in entered:
                row.unread = 0

    def found(self, index: int) -> int:
        """Tokens of a prompt that the prefix cache has; its blocks are in there now."""
        if not self.model.prefix_cache_tokens:
            return 0
        prefix, prompt_tokens = self.work.prefixes[index], int(self.work.prompt_tokens[index])
        num_found = 0
        while num_found < len(prefix) and prefix[num_found] in self.kept:
            num_found += 1
        self.kept = [block for block in self.kept if block not in prefix] + list(prefix)[::-1]
        self.kept = self.kept[max(0, len(self.kept) - self.model.prefix_cache_tokens // BLOCK_TOKENS) :]
        return max(0, min(BLOCK_TOKENS * num_found, prompt_tokens - 1))

    def has_room(self) -> bool:
        if self.model.memory == "reserve" or not self.writing:
            return True
        unread = sum(row.unread for row in self.rows)
        return self.in_cache + unread + len(self.writing) <= self.model.kv_tokens

    def put_youngest_back(self) -> None:
        row = self.rows.pop()
        self.written[row.index] = row.tokens
        self.back.append(row.index)

    def step(self) -> None:
        writing = self.writing
        chunk = 0
        if self.model.chunk_tokens is not None:
            chunk = min(self.model.chunk_tokens - len(writing), sum(row.unread for row in self.rows))
        cost = self.cost
        self.now += cost.step_fixed_s + len(writing) * cost.step_row_s + self.in_cache * cost.step_context_s
        self.now += chunk * cost.read_token_s
        for row in writing:
            row.tokens += 1
        for row in self.rows:
            taken = min(chunk, row.unread)
            row.unread -= taken
            chunk -= taken
        for row in [row for row in self.rows if row.tokens >= self.work.answer_tokens[row.index] and not row.unread]:
            self.rows.remove(row)
            self.end[row.index] = self.now
