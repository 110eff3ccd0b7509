"""What is done after a try that failed: pure policy, with time and chance handed in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.engines.openai.faults import Fault, fault_of, retry_after
from lengthwise.engines.openai.retry import Health, RetryBudget, RetryPolicy, Tries
from lengthwise.engines.openai.servers import Server, choose, wait_s
from lengthwise.errors import EngineError
from lengthwise.types import ErrorInfo

POLICY = RetryPolicy()
BROKEN = Fault("server", "Oops", 500)
GONE = Fault("unreachable", "It can't be reached")
LIMITED = Fault("limited", "Slow down", 429)


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind"),
    [
        (400, b"{}", {}, "request"),
        (413, b"", {}, "request"),
        (422, b'{"detail": [{"msg": "bad"}]}', {}, "request"),
        (401, b"", {}, "access"),
        (403, b"", {}, "access"),
        (404, b"", {}, "unknown"),
        (408, b"", {}, "server"),
        (429, b"", {}, "limited"),
        (429, b'{"error": {"code": "insufficient_quota"}}', {}, "access"),
        (500, b"", {}, "server"),
        (503, b"", {}, "server"),
        (503, b"", {"retry-after": "2"}, "limited"),
        (302, b"", {"location": "http://x/"}, "server"),
        (204, b"", {}, "server"),
    ],
)
def test_faults_are_sorted_by_whose_they_are(status, body, headers, kind):
    """Each status has one kind; a used-up account is no rate limit."""
    fault = fault_of(status, headers, body, now_s=0.0)
    assert fault is not None
    assert fault.kind == kind


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": {"message": "too hot"}}',
        b'{"error": "too hot"}',
        b'{"message": "too hot", "object": "error"}',
        b'{"detail": "too hot"}',
        b'{"detail": [{"msg": "too hot", "loc": ["body"]}]}',
        b"too hot",
    ],
)
def test_a_servers_sentence_is_found_in_every_shape(body):
    """OpenAI, vLLM, FastAPI and plain text: the fault says what the server said."""
    assert "too hot" in fault_of(400, {}, body, 0.0).message


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2", 2.0),
        ("0.5", 0.5),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60.0),
        ("Sun, 06 Nov 1994 08:49:30 GMT", None),
        ("0", None),
        ("-3", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        (None, None),
        ("1e12", 86_400.0),
    ],
)
def test_retry_after_in_seconds_or_as_a_date(value, seconds):
    """Both forms of the header; what is past or no number says nothing; a day is the most."""
    assert retry_after(value, now_s=784111777.0) == seconds


def test_tries_are_counted_where_the_server_saw_the_request():
    """Six more tries; being limited or having no connection is none of them."""
    tries = Tries(POLICY, began_s=0.0)
    for _ in range(6):
        assert tries.after(BROKEN, 1.0) is None
        assert tries.after(LIMITED, 1.0) is None
        assert tries.after(GONE, 1.0) is None
    assert tries.after(BROKEN, 1.0) == ErrorInfo("server_error", "Oops Tried 7 times.")


def test_a_timeout_is_tried_twice_more():
    """Each costs the server a whole answer: the third is the end."""
    tries = Tries(POLICY, 0.0)
    ends = [tries.after(Fault("timeout", "Late."), 1.0) for _ in range(3)]
    assert ends[:2] == [None, None]
    assert ends[2].type == "timeout"


def test_a_limit_ends_a_request_after_the_patience_and_the_rest_asked_for():
    """A server that asks for an hour gets it; beyond that and the patience the request is an error row."""
    tries = Tries(POLICY, 0.0)
    assert tries.after(Fault("limited", "Slow", 429, retry_after_s=3600.0), 1.0) is None
    assert tries.after(LIMITED, 3899.0) is None
    assert tries.after(LIMITED, 3901.0).type == "rate_limited"


@given(st.integers(1, 500), st.floats(0, 1))
def test_delays_double_up_to_the_longest(num, chance):
    """Never longer than a minute nor than twice the former; drawn from 0 up."""
    assert 0 <= POLICY.delay_s(num, chance) <= min(60.0, 2.0 ** min(num - 1, 30))
    assert POLICY.delay_s(num, 0.0) == 0.0
    assert POLICY.delay_s(num + 1, 1.0) in (2 * POLICY.delay_s(num, 1.0), 60.0)


@given(st.lists(st.sampled_from(["request", "retry", "second"]), max_size=400))
def test_the_budget_is_a_fifth_ten_and_one_a_second(steps):
    """Whatever happens: tries again that may be by now are at most a fifth of the requests, ten, and one a second."""
    budget, now_s, num_requests, allowed_at = RetryBudget(POLICY), 0.0, 0, []
    for step in steps:
        now_s += step == "second"
        if step == "request":
            num_requests += 1
            budget.add_request()
        if step == "retry":
            allowed_at.append(now_s + budget.take(now_s))
        num_allowed = sum(at <= now_s for at in allowed_at)
        assert num_allowed <= 10 + 0.2 * num_requests + now_s + 1e-6


def test_the_budget_lets_a_breakdown_pass_slowly():
    """64 running requests broken at once: 22 may go at once, the last after 42 seconds; none is refused."""
    budget = RetryBudget(POLICY)
    for _ in range(64):
        budget.add_request()
    waits = [budget.take(0.0) for _ in range(64)]
    assert sum(wait == 0 for wait in waits) == 22
    assert max(waits) == pytest.approx(64 - 22.8)


def test_health_ends_a_run_in_which_nothing_succeeds():
    """Failing for the patience, with nothing else running: EngineError; both it and a success start anew."""
    health = Health(POLICY)
    health.faulted(GONE, "a", 0.0, num_running=0)
    health.faulted(GONE, "a", 299.0, num_running=0)
    health.succeeded()
    health.faulted(GONE, "b", 300.0, num_running=0)
    with pytest.raises(EngineError, match="can't be reached"):
        health.faulted(GONE, None, 600.0, num_running=0)
    health.faulted(GONE, "b", 601.0, num_running=0)  # whoever goes on has as much patience again


def test_health_waits_for_those_that_still_run():
    """Answers that take long are no failure: with others running it takes twenty faults and the patience."""
    health = Health(POLICY)
    for num in range(19):
        health.faulted(BROKEN, f"r{num}", 100.0 * num, num_running=60)
    with pytest.raises(EngineError):
        health.faulted(BROKEN, "r19", 1900.0, num_running=60)


def test_health_counts_no_rest_that_was_asked_for():
    """A server that asks for an hour is not given up within it."""
    health = Health(POLICY)
    health.faulted(Fault("limited", "Later", 429, 3600.0), "a", 0.0, 0)
    health.faulted(LIMITED, "b", 3899.0, 0)
    with pytest.raises(EngineError, match="Slow"):
        health.faulted(LIMITED, "a", 3900.0, 0)


def test_health_blames_no_server_for_one_request():
    """One request that alone fails again and again is no sign of a dead server."""
    health = Health(POLICY)
    for at_s in range(0, 10_000, 100):
        health.faulted(LIMITED, "only", float(at_s), 0)


def test_twenty_failed_requests_in_a_row_end_a_run():
    """Different ones; a success between starts anew."""
    health = Health(POLICY)
    for num in range(19):
        health.failed(f"r{num}", BROKEN)
        health.failed("r0", BROKEN)
    health.succeeded()
    for num in range(19):
        health.failed(f"s{num}", BROKEN)
    with pytest.raises(EngineError, match="20 requests"):
        health.failed("s19", BROKEN)
    health.failed("s20", BROKEN)


def test_no_access_ends_a_run_at_once():
    """A wrong key is wrong for all."""
    with pytest.raises(EngineError, match="Check the key"):
        Health(POLICY).faulted(Fault("access", "No.", 401), "r", 0.0, 5)


def test_the_least_loaded_ready_server_is_chosen():
    """Not one that rests or is down, and not the one that has just failed, unless it is the only one."""
    one, two, three = (Server(f"http://{name}", num_running=num) for name, num in (("a", 3), ("b", 1), ("c", 0)))
    assert choose([one, two, three], 0.0, None) is three
    assert choose([one, two, three], 0.0, three) is two
    three.is_down = True
    two.rests_until_s = 5.0
    assert choose([one, two, three], 0.0, one) is one
    one.is_down = True
    assert choose([one, two, three], 0.0, None) is None
    assert wait_s([one, two, three], 1.0) == 4.0


def test_a_server_rests_once_for_all_that_were_refused_together():
    """64 refusals of requests that were sent before the rest count as one; the next after it doubles it."""
    server = Server("http://a")
    for _ in range(64):
        server.faulted(LIMITED, sent_s=0.0, now_s=1.0, policy=POLICY, chance=1.0)
    assert server.rests_until_s == 2.0
    server.faulted(LIMITED, sent_s=2.0, now_s=2.1, policy=POLICY, chance=1.0)
    assert server.rests_until_s == pytest.approx(4.1)
    server.succeeded()
    server.faulted(LIMITED, sent_s=5.0, now_s=5.0, policy=POLICY, chance=1.0)
    assert server.rests_until_s == 6.0


def test_a_server_is_down_when_nobody_is_there():
    """No connection: at once. Cut connections or a gateway's 502: five in a row. A plain 500: never."""
    server = Server("http://a")
    for _ in range(50):
        server.faulted(BROKEN, 0.0, 0.0, POLICY, 0.5)
    assert not server.is_down
    for num in range(5):
        assert not server.is_down
        server.faulted(Fault("server", "Bad gateway", 502) if num % 2 else Fault("cut", "Gone"), 0.0, 0.0, POLICY, 0.5)
    assert server.is_down
    other = Server("http://b")
    other.faulted(GONE, 0.0, 0.0, POLICY, 0.5)
    assert other.is_down
