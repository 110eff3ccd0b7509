"""What is done after a try that gave no answer. Pure: time and chance are handed in.

A request is tried again as long as its tries last (`max_retries`) and while it may still be the server's fault; how
fast all of them are tried again together, the budget says. Waiting for a server that is not there, or that asked for a
rest, is no try.
"""

from __future__ import annotations

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
    patience_s: float = 300.0
    max_failed_in_a_row: int = 20  # different requests; as many by chance, at one in two, come once in a million
    budget_share: float = 0.2  # tries again for each request: Finagle's default, too
    budget_floor: float = 10.0  # so that short jobs have some
    budget_per_s: float = 1.0  # beyond the budget: slow enough for a server that is ill

    def delay_s(self, num_failures: int, chance: float) -> float:
        """After the n-th failure in a row, with `chance` drawn evenly from 0 to 1."""
        return chance * min(self.longest_delay_s, self.first_delay_s * 2.0 ** min(num_failures - 1, 30))


class RetryBudget:
    """How soon the next try again may be: at once within a fifth of the requests, and then one a second.

    So a server that fails now and then costs no time, one that fails always is not flooded, and a single breakdown
    under many running requests makes none of them fail. (Finagle's budget, which refuses instead of waiting.)
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._left = policy.budget_floor
        self._updated_s: float | None = None

    def add_request(self) -> None:
        self._left += self._policy.budget_share

    def take(self, now_s: float) -> float:
        """Take one try again; gives the seconds until it may be."""
        if self._updated_s is not None and self._left < 0:
            self._left = min(0.0, self._left + (now_s - self._updated_s) * self._policy.budget_per_s)
        self._updated_s = now_s
        self._left -= 1
        return max(0.0, -self._left / self._policy.budget_per_s)


@dataclass(slots=True)
class Tries:
    """One request's tries so far."""

    policy: RetryPolicy
    began_s: float
    num_counted: int = 0
    num_timeouts: int = 0
    longest_rest_s: float = 0.0

    def after(self, fault: Fault, now_s: float) -> ErrorInfo | None:
        """Take in what went wrong: the error that the request ends with, or None if it is tried again."""
        self.longest_rest_s = max(self.longest_rest_s, fault.retry_after_s or 0.0)
        if fault.is_request_to_blame:
            return ErrorInfo(fault.error_type, fault.message)
        if fault.kind == "limited":
            return self._after_limit(fault, now_s)
        if fault.kind == "unreachable":
            return None
        self.num_counted += 1
        self.num_timeouts += fault.kind == "timeout"
        if self.num_counted <= self.policy.max_retries and self.num_timeouts <= self.policy.max_timeouts:
            return None
        return ErrorInfo(fault.error_type, f"{fault.message} Tried {self.num_counted} times.")

    def _after_limit(self, fault: Fault, now_s: float) -> ErrorInfo | None:
        """Others may get through while this one never does: it may be too large for the limit."""
        waited_s = now_s - self.began_s
        if waited_s <= self.policy.patience_s + self.longest_rest_s:
            return None
        return ErrorInfo(fault.error_type, f"{fault.message} Tried for {waited_s:.0f} s.")


class Health:
    """Whether it is any use to go on: the run ends, and can be resumed, before all its requests become error rows."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failing_since_s: float | None = None
        self._num_faults = 0
        self._longest_rest_s = 0.0
        self._faulted_ids: set[str | None] = set()  # of tries
        self._failed_ids: set[str] = set()  # of requests that ended

    def succeeded(self) -> None:
        """A server did its work (which may be to refuse a bad request)."""
        self._failing_since_s, self._num_faults, self._longest_rest_s = None, 0, 0.0
        self._faulted_ids.clear()
        self._failed_ids.clear()

    def faulted(self, fault: Fault, request_id: str | None, now_s: float, num_running: int) -> None:
        """A try has failed (`request_id` None: a look whether anybody is there). Raises EngineError when nothing has
        succeeded for too long: every try since has failed, of more requests than one, and none still runs that began
        before. One request that fails alone may be to blame itself; `Tries` ends it."""
        if fault.kind == "access":
            raise EngineError(f"{fault.message} Check the key and the account.")
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        self._num_faults += 1
        self._faulted_ids.add(request_id)
        self._longest_rest_s = max(self._longest_rest_s, fault.retry_after_s or 0.0)
        silent_s = now_s - self._failing_since_s
        is_all = num_running == 0 or self._num_faults >= self._policy.max_failed_in_a_row
        is_any = fault.kind == "unreachable" or len(self._faulted_ids) > 1
        if is_all and is_any and silent_s >= self._policy.patience_s + self._longest_rest_s:
            self.succeeded()  # whoever goes on has as much patience again
            raise EngineError(f"Nothing has succeeded for {silent_s:.0f} s. The last that was heard: {fault.message}")

    def failed(self, request_id: str, fault: Fault) -> None:
        """A request has ended without an answer, and it was not to blame. Raises EngineError when many have, one after
        the other."""
        self._failed_ids.add(request_id)
        num_failed = len(self._failed_ids)
        if num_failed >= self._policy.max_failed_in_a_row:
            self.succeeded()
            raise EngineError(
                f"{num_failed} requests failed one after the other, so the rest would fail, too. The last that was "
                f"heard: {fault.message}"
            )
