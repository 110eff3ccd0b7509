"""What is done after a try that failed: pure policy, with time and chance handed in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.engines.openai.faults import Fault, fault_of, retry_after
from lengthwise.engines.openai.retry import Health, RetryPolicy, Tries
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
        (402, b"", {}, "access"),
        (407, b"", {}, "access"),
        (403, b"", {}, "forbidden"),
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
    tries = Tries(POLICY)
    for _ in range(6):
        assert tries.after(BROKEN, 1.0, 1.0) is None
        assert tries.after(LIMITED, 1.0, 1.0) is None
        assert tries.after(GONE, 1.0, 1.0, is_counted=False) is None
    assert tries.after(BROKEN, 1.0, 1.0) == ErrorInfo("server_error", "Oops. Tried 7 times.")


def test_a_timeout_is_tried_twice_more():
    """Each costs the server a whole answer: the third is the end."""
    tries = Tries(POLICY)
    ends = [tries.after(Fault("timeout", "Late."), 1.0, 1.0) for _ in range(3)]
    assert ends[:2] == [None, None]
    assert ends[2].type == "timeout"


def test_a_limit_ends_a_request_after_the_patience_and_the_rest_asked_for():
    """A server that asks for an hour gets it; beyond that and the patience the request is an error row."""
    tries = Tries(POLICY)
    assert tries.after(Fault("limited", "Slow", 429, retry_after_s=3600.0), 0.0, 0.0) is None
    for _ in range(10):
        assert tries.after(LIMITED, 3899.0, 3899.0) is None
    assert tries.after(LIMITED, 3901.0, 3901.0).type == "rate_limited"


def test_a_limit_ends_only_what_is_refused_again_and_again_while_others_are_not():
    """Waiting for one's turn is no refusal: time counts from the first of an unbroken series of seven or more, and only
    where the server answers others."""
    tries = Tries(POLICY)
    for at_s in (1000.0, 2000.0, 3000.0):
        assert tries.after(LIMITED, at_s, others_answered_s=at_s) is None
    assert tries.after(BROKEN, 3001.0, 3001.0) is None
    for num in range(20):
        assert tries.after(LIMITED, 4000.0 + 14 * num, others_answered_s=4000.0 + 14 * num) is None
    assert tries.after(LIMITED, 4301.0, others_answered_s=3999.0) is None
    error = tries.after(LIMITED, 4302.0, others_answered_s=4100.0)
    assert error == ErrorInfo("rate_limited", "Slow down. Tried 22 times in 302 s.")


@given(st.integers(1, 500), st.floats(0, 1))
def test_delays_double_up_to_the_longest(num, chance):
    """Never longer than a minute nor than twice the former; drawn from 0 up."""
    assert 0 <= POLICY.delay_s(num, chance) <= min(60.0, 2.0 ** min(num - 1, 30))
    assert POLICY.delay_s(num, 0.0) == 0.0
    assert POLICY.delay_s(num + 1, 1.0) in (2 * POLICY.delay_s(num, 1.0), 60.0)


def test_health_ends_a_run_in_which_nothing_succeeds():
    """Failing for the patience, with nothing else running: EngineError; both it and a success start anew."""
    health = Health(POLICY)
    health.faulted(GONE, "a", 0.0, num_running=0)
    health.faulted(GONE, "a", 299.0, num_running=0)
    health.succeeded()
    health.faulted(GONE, "b", 300.0, num_running=0)
    with pytest.raises(EngineError, match="can't be reached"):
        health.faulted(GONE, None, 600.0, num_running=0, is_counted=False)
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
    """One request that alone fails again and again is no sign of a dead server; with another one it is."""
    health = Health(POLICY)
    for at_s in range(0, 10_000, 100):
        health.faulted(LIMITED, "only", float(at_s), 0)
    with pytest.raises(EngineError, match="Nothing has succeeded for 10000 s"):
        health.faulted(LIMITED, "another", 10_000.0, 0)


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
        Health(POLICY).faulted(Fault("access", "No", 401), "r", 0.0, 5)
    with pytest.raises(EngineError, match=r"No\. Check the proxy"):
        Health(POLICY).faulted(Fault("access", "No", 407), "r", 0.0, 5)


def test_what_a_server_refuses_in_every_row_ends_the_run():
    """A hundred different requests refused alike before anything was answered: the same field is wrong in all. After
    an answer no number of bad requests ends a run, and different refusals are different matters."""
    bad = Fault("request", "No such field", 400)
    health = Health(POLICY)
    for num in range(99):
        health.failed(f"r{num}", bad)
        health.failed("r0", bad)
    health.failed("other", Fault("request", "Too large", 413))
    for num in range(99):
        health.failed(f"s{num}", bad)
    with pytest.raises(EngineError, match=r"Every row is refused: No such field\."):
        health.failed("s99", bad)
    health.answered()
    for num in range(1000):
        health.failed(f"t{num}", bad)


def test_twenty_rows_that_are_forbidden_end_a_run():
    """One 403 may be a filter's word on one input; twenty in a row are rights that are missing."""
    health = Health(POLICY)
    flagged = Fault("forbidden", "Flagged", 403)
    for num in range(19):
        health.failed(f"r{num}", flagged)
    with pytest.raises(EngineError, match="20 requests"):
        health.failed("r19", flagged)


def test_time_in_which_nothing_is_asked_is_no_failure():
    """An hour between two runs, or in a slow source, does not count."""
    health = Health(POLICY)
    health.faulted(GONE, "a", 0.0, 0, is_counted=False)
    health.began()
    health.faulted(GONE, "b", 3600.0, 0, is_counted=False)
    with pytest.raises(EngineError):
        health.faulted(GONE, "b", 3900.0, 0, is_counted=False)


def test_one_request_waits_no_longer_than_the_patience_for_a_server_that_is_away():
    """Nothing is counted against it, so the run ends."""
    health = Health(POLICY)
    loading = Fault("server", "Loading", 503)
    health.faulted(loading, "only", 0.0, 0, is_counted=False)
    with pytest.raises(EngineError):
        health.faulted(loading, "only", 300.0, 0, is_counted=False)


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
    server.succeeded(5.0)
    server.faulted(LIMITED, sent_s=5.0, now_s=5.0, policy=POLICY, chance=1.0)
    assert server.rests_until_s == 6.0


def test_a_short_rest_that_does_not_help_becomes_longer():
    """What a server asks for is kept to the first time, half a second at least; as refusals go on, the rest doubles."""
    server, now_s, rests = Server("http://a"), 0.0, []
    for _ in range(6):
        server.faulted(Fault("limited", "Slow", 429, 0.001), now_s, now_s, POLICY, chance=1.0)
        rests.append(server.rests_until_s - now_s)
        now_s = server.rests_until_s
    assert rests == pytest.approx([0.5, 1, 2, 4, 8, 16])
    server.faulted(Fault("limited", "Slow", 429, 100.0), now_s, now_s, POLICY, chance=1.0)
    assert server.rests_until_s - now_s == pytest.approx(100.0)


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
    other.faulted(Fault("cut", "Gone"), 0.0, 0.0, POLICY, 0.5)
    assert other.is_down


def test_refusals_are_no_signs_of_death():
    """A server that says 429 or 500 is there: with such between them, cut connections don't add up."""
    server = Server("http://a")
    for at_s in range(0, 400, 100):
        server.faulted(LIMITED, at_s, at_s, POLICY, 0.5)
    for fault in (*[Fault("cut", "Gone")] * 4, BROKEN, *[Fault("cut", "Gone")] * 4):
        server.faulted(fault, 500.0, 500.0, POLICY, 0.5)
        assert not server.is_down


def test_what_went_down_with_the_server_counts_against_nobody():
    """The five that show it count; all others that were sent before don't, nor do they undo what is known."""
    server = Server("http://a")
    cut = Fault("cut", "Gone")
    assert [server.faulted(cut, 0.0, 1.0, POLICY, 0.5) for _ in range(5)] == [True] * 5
    assert [server.faulted(cut, 0.0, 1.1, POLICY, 0.5) for _ in range(50)] == [False] * 50
    server.revived()
    assert not server.faulted(cut, 0.5, 2.0, POLICY, 0.5)
    assert server.is_on_trial


def test_a_server_that_is_back_gets_one_request_first():
    """Somebody says something again: one request goes there. Answered, all may; 503 (it still loads its model) counts
    against nobody, and it is down again."""
    server = Server("http://a")
    server.faulted(GONE, 0.0, 0.0, POLICY, 0.5)
    server.revived()
    assert choose([server], 1.0, None) is server
    server.has_trial = True
    assert choose([server], 1.0, None) is None
    assert not server.faulted(Fault("server", "Loading", 503), 1.0, 1.0, POLICY, 0.5)
    assert server.is_down
    server.revived()
    assert server.faulted(Fault("cut", "It crashed"), 2.0, 2.0, POLICY, 0.5)
    assert server.is_down
    server.revived()
    server.succeeded(3.0)
    assert choose([server], 3.0, None) is server
    assert not server.is_on_trial
