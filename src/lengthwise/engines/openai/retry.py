"""What is done after a try that gave no answer. Pure: time and chance are handed in.

A request is tried again as long as its tries last (`max_retries`) and while it may still be the server's fault; how
fast all of them are tried again together, the budget says. Waiting for a server that is not there, or that asked for a
rest, is no try.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lengthwise.engines.openai.faults import Fault
from lengthwise.errors import EngineError
from lengthwise.types import ErrorInfo


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, how late and how long something is tried again. Times in seconds."""

    max_retries: int = 6
    max_timeouts: int = 2  # tries again after a timeout: each costs the server a whole answer
    first_delay_s: float = 1.0  # doubled each time, and drawn from 0 to that ("full jitter"): all come at other times
    longest_delay_s: float = 60.0
    shortest_rest_s: float = 0.5  # whatever a server asks for: many that come back in a millisecond are a storm
    patience_s: float = 300.0
    max_failed_in_a_row: int = 20  # different requests; as many by chance, at one in two, come once in a million
    max_refused_first: int = 100  # different requests, all refused alike before the first answer: a wrong field in all
    budget_share: float = 0.2  # tries again for each request: Finagle's default, too
    budget_floor: float = 10.0  # so that short jobs have some
    budget_per_s: float = 1.0  # beyond the budget: slow enough for a server that is ill

    def delay_s(self, num_failures: int, chance: float) -> float:
        """After the n-th failure in a row, with `chance` drawn evenly from 0 to 1."""
        return chance * min(self.longest_delay_s, self.first_delay_s * 2.0 ** min(num_failures - 1, 30))


@dataclass(slots=True)
class Tries:
    """One request's tries so far."""

    policy: RetryPolicy
    num_counted: int = 0
    num_timeouts: int = 0
    num_limited: int = 0  # in a row
    limited_since_s: float = math.inf
    longest_rest_s: float = 0.0

    def after(self, fault: Fault, now_s: float, others_answered_s: float, is_counted: bool = True) -> ErrorInfo | None:
        """Take in what went wrong: the error that the request ends with, or None if it is tried again.
        `others_answered_s`: when the same server last answered anything."""
        if fault.is_request_to_blame:
            return ErrorInfo(fault.error_type, fault.message)
        if fault.kind == "limited":
            return self._after_limit(fault, now_s, others_answered_s)
        self.num_limited = 0
        if not is_counted:
            return None
        self.num_counted += 1
        self.num_timeouts += fault.kind == "timeout"
        if self.num_counted <= self.policy.max_retries and self.num_timeouts <= self.policy.max_timeouts:
            return None
        return ErrorInfo(fault.error_type, f"{fault.sentence} Tried {self.num_counted} times.")

    def _after_limit(self, fault: Fault, now_s: float, others_answered_s: float) -> ErrorInfo | None:
        """Others may get through while this one never does: it may be too large for the limit."""
        if self.num_limited == 0:
            self.limited_since_s, self.longest_rest_s = now_s, 0.0
        self.num_limited += 1
        self.longest_rest_s = max(self.longest_rest_s, fault.retry_after_s or 0.0)
        waited_s = now_s - self.limited_since_s
        is_long = waited_s > self.policy.patience_s + self.longest_rest_s and self.num_limited > self.policy.max_retries
        if not is_long or others_answered_s < self.limited_since_s:
            return None
        return ErrorInfo(fault.error_type, f"{fault.sentence} Tried {self.num_limited} times in {waited_s:.0f} s.")


class Health:
    """Whether it is any use to go on: the run ends, and can be resumed, before all its requests become error rows."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._has_answered = False
        self._failing_since_s: float | None = None
        self._num_faults = 0
        self._longest_rest_s = 0.0
        self._faulted_ids: set[str | None] = set()  # of tries
        self._failed_ids: set[str] = set()  # of requests that ended
        self._refused_ids: set[str] = set()  # before the first answer
        self._refused_status: int | None = None

    def began(self) -> None:
        """Something is asked again after a time in which nothing was: that time is no failure."""
        self._failing_since_s, self._num_faults, self._longest_rest_s = None, 0, 0.0
        self._faulted_ids.clear()

    def succeeded(self) -> None:
        """A server did its work (which may be to refuse a bad request)."""
        self.began()
        self._failed_ids.clear()

    def answered(self) -> None:
        self._has_answered = True
        self._refused_ids.clear()
        self.succeeded()

    def faulted(
        self, fault: Fault, request_id: str | None, now_s: float, num_running: int, is_counted: bool = True
    ) -> None:
        """A try has failed (`request_id` None: a look whether anybody is there). Raises EngineError when nothing has
        succeeded for too long: every try since has failed, and none still runs that began before. Tries that count must
        be of more requests than one: one that fails alone may be to blame itself; `Tries` ends it."""
        if fault.kind == "access":
            whose = "the proxy's user and password" if fault.status == 407 else "the key and the account"
            raise EngineError(f"{fault.sentence} Check {whose}.")
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        self._num_faults += 1
        self._faulted_ids.add(request_id)
        self._longest_rest_s = max(self._longest_rest_s, fault.retry_after_s or 0.0)
        silent_s = now_s - self._failing_since_s
        is_all = num_running == 0 or self._num_faults >= self._policy.max_failed_in_a_row
        is_any = not is_counted or len(self._faulted_ids) > 1
        if is_all and is_any and silent_s >= self._policy.patience_s + self._longest_rest_s:
            self.succeeded()  # whoever goes on has as much patience again
            raise EngineError(f"Nothing has succeeded for {silent_s:.0f} s. The last that was heard: {fault.message}")

    def failed(self, request_id: str, fault: Fault) -> None:
        """A request has ended without an answer. Raises EngineError when many have, one after the other: fewer where
        they were not to blame, and where they were only as long as nothing was ever answered."""
        if fault.kind == "request":
            return self._refused(request_id, fault)
        self._failed_ids.add(request_id)
        num_failed = len(self._failed_ids)
        if num_failed >= self._policy.max_failed_in_a_row:
            self.succeeded()
            raise EngineError(
                f"{num_failed} requests failed one after the other, so the rest would fail, too. The last that was "
                f"heard: {fault.message}"
            )

    def _refused(self, request_id: str, fault: Fault) -> None:
        if self._has_answered:
            return
        if fault.status != self._refused_status:
            self._refused_status = fault.status
            self._refused_ids.clear()
        self._refused_ids.add(request_id)
        if len(self._refused_ids) >= self._policy.max_refused_first:
            self._refused_ids.clear()
            raise EngineError(f"Every row is refused: {fault.sentence} Look at what all rows have in common.")
