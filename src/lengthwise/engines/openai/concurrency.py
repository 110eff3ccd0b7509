"""How many requests run at once: as asked for, or found from throughput. Pure: times are handed in.

Found: twice as many are tried as long as that brings a tenth more tokens a second; when it does not, it goes back, and
a quarter more is tried again later and later. Overload halves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class Limit(Protocol):
    """`value` is how many may run now."""

    @property
    def value(self) -> int: ...

    def answered(self, tokens: int, num_running: int, now_s: float) -> None:
        """An answer of `tokens` tokens has ended, while `num_running` ran."""
        ...

    def overloaded(self, sent_s: float, now_s: float) -> None:
        """A request that was sent at `sent_s` was one too many."""
        ...


@dataclass(frozen=True)
class FixedLimit:
    """What was asked for, whatever happens."""

    value: int

    def answered(self, tokens: int, num_running: int, now_s: float) -> None:
        pass

    def overloaded(self, sent_s: float, now_s: float) -> None:
        pass


DOUBLE, A_QUARTER_MORE = 2.0, 1.25  # ways to grow: until it does not pay, and from there
MAX_FOUND = 1024  # servers of one machine run fewer; connections cost file descriptors


@dataclass(frozen=True, slots=True)
class FoundLimitConfig:
    """How the number is looked for."""

    start: int = 8
    most: int = MAX_FOUND
    gain: float = 1.1  # more tokens a second than this are worth having more requests run
    min_answers: int = 32  # in one measurement, and at least two for each that runs: lengths differ
    hold: int = 4  # measurements until more is tried again; doubled each time that was in vain
    max_hold: int = 64


class FoundLimit:
    """Grows while it pays. Answers that began before a change are not counted for it, nor is what is measured while
    fewer run than may (the end of a job, a slow source)."""

    def __init__(self, config: FoundLimitConfig = FoundLimitConfig()) -> None:
        self._config = config
        self._value = min(config.start, config.most)
        self._growth = DOUBLE
        self._accepted = self._value  # what is known to pay
        self._rate = 0.0  # tokens a second there
        self._hold = config.hold
        self._num_held = 0
        self._halved_s = -math.inf
        self._began_s: float | None = None
        self._num_settling = self._num_answers = self._tokens = 0
        self._begin(settling=self._value)

    @property
    def value(self) -> int:
        return self._value

    def answered(self, tokens: int, num_running: int, now_s: float) -> None:
        if num_running < self._value / 2:
            return self._begin(settling=0)
        if self._num_settling:
            self._num_settling -= 1
            return
        if self._began_s is None:
            self._began_s = now_s
            return
        self._num_answers += 1
        self._tokens += tokens
        if self._num_answers >= self._num_wanted and now_s > self._began_s:
            self._judge(self._tokens / (now_s - self._began_s))

    def overloaded(self, sent_s: float, now_s: float) -> None:
        """Halve, once for all that were sent before."""
        if sent_s < self._halved_s:
            return
        self._halved_s = now_s
        self._growth = A_QUARTER_MORE
        self._accepted, self._rate, self._num_held = max(1, self._value // 2), 0.0, 0
        self._set(self._accepted)

    @property
    def _num_wanted(self) -> int:
        """Answers in one measurement; a small gain, once doubling is over, takes more to be told from chance."""
        num = max(self._config.min_answers, 2 * self._value)
        return num if self._growth == DOUBLE else 4 * num

    def _judge(self, rate: float) -> None:
        if self._value == self._accepted:
            self._hold_on(rate)
        elif rate >= self._config.gain * self._rate:
            self._accepted, self._rate, self._hold = self._value, rate, self._config.hold
            self._try_more()
        else:
            self._growth = A_QUARTER_MORE
            self._hold = min(2 * self._hold, self._config.max_hold)
            self._num_held = 0
            self._set(self._accepted)

    def _hold_on(self, rate: float) -> None:
        is_first = self._rate == 0.0
        self._rate = rate
        self._num_held += 1
        if self._num_held >= self._hold or (is_first and self._growth == DOUBLE):
            self._num_held = 0
            self._try_more()
        else:
            self._begin(settling=0)

    def _try_more(self) -> None:
        self._set(min(self._config.most, max(self._value + 1, int(self._value * self._growth))))

    def _set(self, value: int) -> None:
        self._value = value
        self._begin(settling=value)

    def _begin(self, settling: int) -> None:
        self._num_settling, self._num_answers, self._tokens = settling, 0, 0
        self._began_s = None
