"""How many requests run at once: as asked for, or found from throughput. Pure: times are handed in.

Found: more are tried as long as that brings a tenth more tokens a second; when it does not, it goes back. Refusals
halve. Either tells a number that was too many. Far below it twice as many are tried and near it a quarter more, at
once; to reach it and go beyond, a quarter more is tried later and later, until that pays.
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

    def refused(self, sent_s: float, now_s: float) -> None:
        """A request that was sent at `sent_s` was one too many, as the server says."""
        ...

    def late(self, sent_s: float, now_s: float) -> None:
        """A request that was sent at `sent_s` had no answer in time, which may have many reasons."""
        ...


@dataclass(frozen=True)
class FixedLimit:
    """What was asked for, whatever happens."""

    value: int

    def answered(self, tokens: int, num_running: int, now_s: float) -> None:
        pass

    def refused(self, sent_s: float, now_s: float) -> None:
        pass

    def late(self, sent_s: float, now_s: float) -> None:
        pass


DOUBLE, A_QUARTER_MORE = 2.0, 1.25  # ways to grow: far below what was too many, and near it
MAX_FOUND = 1024  # servers of one machine run fewer; connections cost file descriptors


@dataclass(frozen=True, slots=True)
class FoundLimitConfig:
    """How the number is looked for."""

    start: int = 8
    most: int = MAX_FOUND
    gain: float = 1.1  # more tokens a second than this are worth having more requests run
    min_answers: int = 32  # in one measurement, where that is at most four for each that runs: lengths differ
    max_hold: int = 64  # measurements until more than what was too many is tried again; doubled from 1
    late_share: float = 0.1  # of the tries: more timeouts than this are the server's load, fewer are the requests'


class FoundLimit:
    """Grows while it pays. Answers that began before a change are not counted for it, nor is what is measured while
    mostly less than half of them run (the end of a job, a slow source)."""

    def __init__(self, config: FoundLimitConfig = FoundLimitConfig()) -> None:
        self._config = config
        self._value = min(config.start, config.most)
        self._accepted = self._value  # what is known to pay
        self._rate = 0.0  # tokens a second there
        self._too_many = math.inf
        self._hold = 1
        self._num_held = 0
        self._num_late = 0.0  # above the share that is no sign
        self._halved_s = -math.inf
        self._has_answered = True  # since it was halved
        self._began_s: float | None = None
        self._num_settling = self._num_answers = self._num_few = self._tokens = 0
        self._begin(settling=self._value)

    @property
    def value(self) -> int:
        return self._value

    def answered(self, tokens: int, num_running: int, now_s: float) -> None:
        self._has_answered = True
        self._num_late = max(0.0, self._num_late - self._config.late_share)
        if self._num_settling:
            self._num_settling -= 1
            return
        if self._began_s is None:
            self._began_s = now_s
            return
        self._num_answers += 1
        self._num_few += num_running < self._value / 2
        self._tokens += tokens
        if self._num_answers >= self._num_wanted and now_s > self._began_s:
            if self._num_few > self._num_answers / 2:  # some are always few, where many end at the same moment
                self._begin(settling=0)
            else:
                self._judge(self._tokens / (now_s - self._began_s))

    def refused(self, sent_s: float, now_s: float) -> None:
        """Halve, once for all that were sent before, and not again before something was answered: a server that refuses
        everything for a while is no reason to begin at 1."""
        if sent_s < self._halved_s or not self._has_answered:
            return
        self._halved_s, self._has_answered, self._num_late = now_s, False, 0.0
        is_first = self._value + 1 < self._too_many  # a moment's trouble, until it comes again
        self._fall_back(to=max(1, self._value // 2), too_many=self._value + is_first)
        self._accepted, self._rate = self._value, 0.0

    def late(self, sent_s: float, now_s: float) -> None:
        if sent_s < self._halved_s:
            return
        self._num_late += 1
        if self._num_late >= max(2.0, self._value / 2):
            self._has_answered = True  # or it would never come down to where answers are in time
            self.refused(sent_s, now_s)

    @property
    def _next(self) -> int:
        """The number to try after this one."""
        growth = DOUBLE if self._value * DOUBLE < self._too_many else A_QUARTER_MORE
        return min(self._config.most, max(self._value + 1, int(self._value * growth)))

    @property
    def _num_wanted(self) -> int:
        """Answers in one measurement; a small gain that was once found to be none takes more to be told from chance."""
        num = max(2 * self._value, min(self._config.min_answers, 4 * self._value))
        return num if self._value * DOUBLE < self._too_many else 4 * num

    def _judge(self, rate: float) -> None:
        if self._value == self._accepted:
            self._num_held += 1
        elif rate >= self._config.gain * self._rate:
            if self._value >= self._too_many:
                self._too_many, self._hold = math.inf, 1
            self._accepted, self._num_held = self._value, 0
        else:
            return self._fall_back(to=self._accepted, too_many=self._value)
        self._rate = rate
        if self._next < self._too_many or self._num_held >= self._hold:
            self._num_held = 0
            self._set(self._next)
        else:
            self._begin(settling=0)

    def _fall_back(self, to: int, too_many: int) -> None:
        if self._value >= self._too_many:  # tried again in vain
            self._hold = min(2 * self._hold, self._config.max_hold)
        self._too_many, self._num_held = too_many, 0
        self._set(to)

    def _set(self, value: int) -> None:
        self._value = value
        self._begin(settling=value)

    def _begin(self, settling: int) -> None:
        self._num_settling, self._num_answers, self._num_few, self._tokens = settling, 0, 0, 0
        self._began_s = None
