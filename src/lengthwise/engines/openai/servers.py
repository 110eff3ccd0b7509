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
    num_refusals: int = 0  # in a row, each after a rest
    num_signs: int = 0  # of death, in a row
    num_looks: int = 0  # whether it is back, since its last answer
    answered_s: float = -math.inf
    rests_from_s: float = -math.inf
    rests_until_s: float = -math.inf
    found_down_s: float = -math.inf
    is_down: bool = False  # nobody is there: it is asked now and then, with no request at stake
    is_on_trial: bool = False  # somebody is there again: one request shows whether it can answer
    has_trial: bool = False  # that request is there

    def wait_s(self, now_s: float) -> float:
        is_closed = self.is_down or (self.is_on_trial and self.has_trial)
        return math.inf if is_closed else max(0.0, self.rests_until_s - now_s)

    def succeeded(self, now_s: float) -> None:
        self.answered_s = now_s
        self.num_refusals = self.num_signs = self.num_looks = 0
        self.is_down = self.is_on_trial = False

    def revived(self) -> None:
        """Somebody is there, who may still be loading the model."""
        self.is_down, self.is_on_trial, self.has_trial = False, True, False

    def faulted(self, fault: Fault, sent_s: float, now_s: float, policy: RetryPolicy, chance: float) -> bool:
        """Take in what went wrong with a try that was sent at `sent_s`: rest, and know when nobody is there. True if
        the try counts against its request; it does not where the server was away or not ready."""
        if fault.is_server_down and sent_s < self.found_down_s:
            return False  # it went down with the others and says nothing new
        was_on_trial, self.is_on_trial = self.is_on_trial, False
        if fault.kind == "limited":
            self._rest(fault, sent_s, now_s, policy, chance)
        elif fault.is_server_down:
            self.num_signs += 1
            if was_on_trial or fault.kind == "unreachable" or self.num_signs >= SIGNS_OF_DEATH:
                self.is_down, self.found_down_s = True, now_s
        elif fault.is_from_server:
            self.num_signs = 0
        return not (fault.kind == "unreachable" or (self.is_down and fault.status == 503))

    def _rest(self, fault: Fault, sent_s: float, now_s: float, policy: RetryPolicy, chance: float) -> None:
        """As long as it asks for, but longer each time that this did not help."""
        is_new = sent_s >= self.rests_from_s  # those sent before the rest began say nothing new
        self.num_refusals += is_new
        rest_s = 0.0 if fault.retry_after_s is None else max(fault.retry_after_s, policy.shortest_rest_s)
        num_in_vain = self.num_refusals - (fault.retry_after_s is not None)
        if is_new and num_in_vain:
            rest_s = max(rest_s, policy.delay_s(num_in_vain, 0.5 + chance / 2))
        if rest_s:
            self.rests_from_s = now_s
            self.rests_until_s = max(self.rests_until_s, now_s + rest_s)


def choose(servers: Sequence[Server], now_s: float, avoided: Server | None) -> Server | None:
    """The one with the least to do of those that are ready, not `avoided` unless it is the only one; None if all
    rest or are down."""
    ready = [server for server in servers if server.wait_s(now_s) <= 0]
    others = [server for server in ready if server is not avoided]
    return min(others or ready, key=lambda server: server.num_running, default=None)


def wait_s(servers: Sequence[Server], now_s: float) -> float:
    """Seconds until the first may be ready; infinite if all are down."""
    return min(server.wait_s(now_s) for server in servers)
