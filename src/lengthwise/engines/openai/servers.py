"""Several servers with one model: whose turn it is, and who rests. Pure: time and chance are handed in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lengthwise.engines.openai.faults import Fault
from lengthwise.engines.openai.retry import RetryPolicy

SIGNS_OF_DEATH = 5  # connections cut or gateway errors in a row; one or two happen to every server


@dataclass(slots=True)
class Server:
    """One base URL and what is known of it. Times by one clock, in seconds."""

    url: str
    num_running: int = 0
    num_faults: int = 0  # in a row
    rests_from_s: float = -math.inf
    rests_until_s: float = -math.inf
    is_down: bool = False  # nobody is there: it is asked now and then, with no request at stake

    def wait_s(self, now_s: float) -> float:
        return math.inf if self.is_down else max(0.0, self.rests_until_s - now_s)

    def succeeded(self) -> None:
        self.num_faults = 0
        self.is_down = False

    def faulted(self, fault: Fault, sent_s: float, now_s: float, policy: RetryPolicy, chance: float) -> None:
        """Take in what went wrong with a try that was sent at `sent_s`: rest as long as the server asks for, or
        longer each time where it does not say; and know when nobody is there."""
        if fault.kind == "limited":
            self._rest(fault, sent_s, now_s, policy, chance)
        elif fault.is_server_down:
            self.num_faults += 1
            self.is_down = fault.kind == "unreachable" or self.num_faults >= SIGNS_OF_DEATH

    def _rest(self, fault: Fault, sent_s: float, now_s: float, policy: RetryPolicy, chance: float) -> None:
        if fault.retry_after_s is not None:
            self._rest_until(now_s + fault.retry_after_s, now_s)
        elif sent_s >= self.rests_from_s:  # those sent before the rest began say nothing new
            self.num_faults += 1
            self._rest_until(now_s + policy.delay_s(self.num_faults, 0.5 + chance / 2), now_s)

    def _rest_until(self, until_s: float, now_s: float) -> None:
        self.rests_from_s = now_s
        self.rests_until_s = max(self.rests_until_s, until_s)


def choose(servers: Sequence[Server], now_s: float, avoided: Server | None) -> Server | None:
    """The one with the least to do of those that are ready, not `avoided` unless it is the only one; None if all
    rest or are down."""
    ready = [server for server in servers if server.wait_s(now_s) <= 0]
    others = [server for server in ready if server is not avoided]
    return min(others or ready, key=lambda server: server.num_running, default=None)


def wait_s(servers: Sequence[Server], now_s: float) -> float:
    """Seconds until the first may be ready; infinite if all are down."""
    return min(server.wait_s(now_s) for server in servers)
