"""The engine on real sockets: whatever a server does, every start ends once, and answers are whole."""

from __future__ import annotations

import gc
import logging
import threading
import time

import pytest

from lengthwise.errors import EngineError
from lengthwise.pipeline import Pipeline
from lengthwise.testing import check_engine
from lengthwise.types import Failed, Finished, Request, SamplingParams
from tests.engines.openai.runs import ends, events, is_cancelled, requests, run, wait_until
from tests.engines.openai.server import Call, Reply, ScriptedServer, answer, free_port, refusal

KEY = "sk-proj-A1b2C3d4E5f6G7h8I9j0"


def test_it_keeps_the_contract_of_engines(open_engine):
    """`check_engine` passes."""
    with ScriptedServer() as server:
        check_engine(open_engine(server.url), requests(20))


def test_chat_and_completions(open_engine):
    """Texts and messages go to chat; what is raw goes to completions; texts, counts and bodies come back."""
    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello there"})
    asked = [Request("text", "Hello"), Request("chat", messages), Request("raw", "Once upon", is_raw=True)]
    with ScriptedServer(lambda call: answer(call, text=f"to {call.prompt}")) as server:
        found = run(open_engine(server.url), asked)
        bodies = {call.path: call.body for call in server.calls}
    assert [found[name].text for name in ("text", "chat", "raw")] == ["to Hello", "to Hello there", "to Once upon"]
    assert bodies["/v1/completions"]["prompt"] == "Once upon"
    assert found["chat"].prompt_tokens == 2  # the server's count, not the estimate
    assert found["raw"].response["choices"][0]["text"] == "to Once upon"


@pytest.mark.parametrize("num", [800, pytest.param(10_000, marks=pytest.mark.campaign)])
def test_one_in_ten_fails_and_all_are_answered(open_engine, num):
    """64 at once, one in ten tries ends in a 500: each request is answered once, each try is accounted for."""
    with ScriptedServer(lambda call: refusal(500, "Oops") if call.number % 10 == 0 else answer(call)) as server:
        engine = open_engine(server.url, concurrency=64)
        found = run(engine, requests(num))
        assert {completion.error for completion in found.values()} == {None}
        assert len(server.calls) == num + engine.num_retries
        assert num * 0.1 <= engine.num_retries <= num * 0.2
        assert server.most_running <= 64


def test_tries_beyond_the_budget_come_slowly(open_engine):
    """All of ten requests fail twice and the budget is two: ten tries again are in vain, and beyond two they come one
    every 50 ms, or one for each that brings an answer."""
    budget = {"budget_floor": 2.0, "budget_share": 0.0, "budget_per_s": 20.0}
    with ScriptedServer(lambda call: refusal(500, "Oops") if call.attempt <= 2 else answer(call)) as server:
        found = run(open_engine(server.url, concurrency=10, policy=budget), requests(10))
        assert {completion.error for completion in found.values()} == {None}
        assert server.calls[-1].at_s - server.calls[0].at_s >= 8 / 20


@pytest.mark.parametrize(
    ("reply", "type"),
    [
        (Reply(500, b"Oops"), "server_error"),
        (Reply(body=b"<html>Welcome</html>", headers={"content-type": "text/html"}), "invalid_response"),
        (Reply(body=b'{"choices": [{"message": {"content": "ha'), "invalid_response"),
        (Reply(body={"choices": []}), "invalid_response"),
        (Reply(body={"error": {"message": "upstream is away", "code": 502}}), "server_error"),
        (Reply(body={"choices": [{"message": {"content": "a piece"}, "finish_reason": "abort"}]}), "invalid_response"),
        (Reply(302, b"", {"location": "http://elsewhere/"}), "server_error"),
    ],
)
def test_a_servers_fault_is_tried_again_then_an_error_row(open_engine, reply, type):
    """Wrong once: answered all the same. Wrong always: one error row with its type, after `max_retries` more tries;
    the others are answered."""

    def script(call: Call) -> Reply:
        return reply if call.prompt == "prompt 0" or call.attempt == 1 else answer(call)

    with ScriptedServer(script) as server:
        found = run(open_engine(server.url, max_retries=2), requests(4))
        assert [found[f"r{i}"].error for i in (1, 2, 3)] == [None] * 3
        assert found["r0"].error.type == type
        assert "Tried 3 times" in found["r0"].error.message
        assert sum(call.prompt == "prompt 0" for call in server.calls) == 3


def test_an_answer_that_is_cut_off_is_never_used(open_engine):
    """The connection ends within the body: the piece is thrown away, the next try's answer is taken."""

    def script(call: Call) -> Reply:
        whole = answer(call, text="all of it")
        return Reply(body=whole.body, cut_at=len(whole.content) - 1) if call.attempt == 1 else whole

    with ScriptedServer(script) as server:
        found = run(open_engine(server.url), requests(10))
        assert {completion.text for completion in found.values()} == {"all of it"}
        assert len(server.calls) == 20


def test_a_server_that_hangs_is_left(open_engine):
    """No answer in time: the connection is closed and the request tried again, twice; then it is an error row."""
    with ScriptedServer(lambda call: Reply(hangs=True) if call.prompt == "prompt 0" else answer(call)) as server:
        found = run(open_engine(server.url, timeout_s=0.2), requests(3))
        assert found["r0"].error.type == "timeout"
        assert found["r1"].error is found["r2"].error is None
        assert len(server.calls) == 3 + 2
        wait_until(lambda: server.left == 3)


def test_a_bad_request_is_an_error_row_at_once(open_engine):
    """400 is not tried again; the server's own sentence stands in the row, and a long prompt has its own type."""
    too_long = {"error": {"message": "context is 8 tokens", "code": "context_length_exceeded"}}

    def script(call: Call) -> Reply:
        bad = {"prompt 0": refusal(400, "top_p must be nice"), "prompt 1": Reply(400, too_long)}
        return bad.get(call.prompt) or answer(call)

    with ScriptedServer(script) as server:
        found = run(open_engine(server.url), requests(3))
        assert len(server.calls) == 3
    assert found["r0"].error.type == "invalid_request"
    assert "top_p must be nice" in found["r0"].error.message
    assert found["r1"].error.type == "context_length_exceeded"
    assert found["r2"].error is None


def test_retry_after_is_kept_to(open_engine):
    """After a 429 with `Retry-After` nothing reaches the server until then, whoever asks; and a request may meet more
    of them than it has tries."""

    def script(call: Call) -> Reply:
        return refusal(429, "Slow down", retry_after="0.3") if call.number <= 3 else answer(call)

    with ScriptedServer(script) as server:
        engine = open_engine(server.url, concurrency=4, max_retries=0)
        engine.start(Request("first", "x"), (), 512, None)
        wait_until(lambda: server.num_replies == 1)
        time.sleep(0.05)
        for request in requests(3):
            engine.start(request, (), 512, None)
        assert all(isinstance(event, Finished) for event in ends(engine, 4).values())
        assert server.calls[1].at_s - server.calls[0].at_s >= 0.3
        assert server.calls[-1].at_s - server.calls[0].at_s >= 0.6
        assert engine.num_retries == 0


def test_a_storm_of_429_is_survived(open_engine):
    """A server that takes three at once and refuses all others without a word on when: everything is answered."""
    lock = threading.Lock()
    running = [0]

    def script(call: Call) -> Reply:
        with lock:
            is_full = server.running > 3
            running[0] = max(running[0], server.running)
        return refusal(429, "Too many") if is_full else Reply(body=answer(call).body, delay_s=0.005)

    with ScriptedServer(script) as server:
        found = run(open_engine(server.url, concurrency=None), requests(80))
    assert {completion.error for completion in found.values()} == {None}
    assert running[0] > 3


def test_a_minute_of_429_is_survived(open_engine):
    """Everything is refused for a time that is long beside the delays: then all is answered, nothing has failed."""
    with ScriptedServer() as server:
        begins_s = time.monotonic() + 0.6
        server.script = lambda call: refusal(429, "Later") if call.at_s < begins_s else answer(call)
        found = run(open_engine(server.url, concurrency=16), requests(40))
        assert {completion.error for completion in found.values()} == {None}
        assert 40 + 16 <= len(server.calls) <= 40 + 16 * 30  # 16 running, and ten rests or so


def test_one_request_that_is_always_limited_ends(open_engine):
    """Others get through and this one never does: it is an error row after the patience, not a hang."""
    with ScriptedServer(
        lambda call: refusal(429, "Too large") if call.prompt == "prompt 0" else answer(call)
    ) as server:
        found = run(open_engine(server.url, concurrency=1, policy={"patience_s": 0.2}), requests(2))
    assert found["r0"].error.type == "rate_limited"
    assert found["r1"].error is None


def test_a_wrong_key_ends_the_run_and_is_not_told(open_engine, caplog):
    """401 while it runs: EngineError, no error rows; a key that the server repeats stands in no error and no log."""
    caplog.set_level(logging.DEBUG)
    seen = []

    def script(call: Call) -> Reply:
        seen.append(call.headers["authorization"])
        return refusal(401, f"Incorrect API key: {KEY}, or {KEY[:16]}***. You sent Bearer {KEY}")

    with ScriptedServer(script) as server:
        engine = open_engine(server.url, key=KEY)
        with pytest.raises(EngineError, match="Check the key") as caught:
            run(engine, requests(30))
        assert len(server.calls) <= 8
    assert seen[0] == f"Bearer {KEY}"
    assert caplog.records
    assert KEY[:12] not in f"{caught.value!r} {caplog.text} {engine!r}"


def test_what_breaks_together_is_one_error(open_engine):
    """Eight running requests are refused one after the other: EngineError once, each request ends once, and after it
    the same engine answers the same requests."""
    with ScriptedServer(lambda call: Reply(401, b"Who?", delay_s=0.03 * call.number)) as server:
        engine = open_engine(server.url)
        for request in requests(8):
            engine.start(request, (), 512, None)
        found, num_errors = {}, 0
        while len(found) < 8:
            try:
                found |= ends(engine, 1)
            except EngineError:
                num_errors += 1
        assert num_errors == 1
        server.script = answer
        assert {completion.error for completion in run(engine, requests(30)).values()} == {None}


def test_what_has_ended_before_a_break_is_given_out(open_engine):
    """Eight answers lie ready when it breaks: `start` doesn't raise over them, `poll` gives them and then raises; what
    was started in between ends, too."""
    with ScriptedServer() as server:
        engine = open_engine(server.url)
        for request in requests(8):
            engine.start(request, (), 512, None)
        wait_until(lambda: engine._events.qsize() == 8)
        engine._break(EngineError("broken"))
        engine.start(Request("late", "x"), (), 512, None)
        found = {event.id: event for event in engine.poll(0.0)}
        assert sum(isinstance(event, Finished) for event in found.values()) == 8
        engine.start(Request("later", "x"), (), 512, None)
        with pytest.raises(EngineError, match="broken"):
            engine.poll(0.0)
        found |= ends(engine, 10 - len(found))
        assert is_cancelled(found["late"])
        assert is_cancelled(found["later"])


def test_a_row_that_is_forbidden_is_an_error_row(open_engine):
    """403 for one input, which a filter may say: its row tells, all others are answered; also if it is the first."""

    def script(call: Call) -> Reply:
        flagged = call.prompt in ("prompt 0", "prompt 5")
        return refusal(403, "your input was flagged") if flagged else answer(call)

    with ScriptedServer(script) as server:
        found = run(open_engine(server.url), requests(30))
    assert {name: done.error.type for name, done in found.items() if done.error} == {
        "r0": "access_denied",
        "r5": "access_denied",
    }


def test_an_account_that_is_used_up_ends_the_run(open_engine):
    """402 after some answers: EngineError, what was answered is kept, no error rows."""
    with ScriptedServer(lambda call: refusal(402, "No balance") if call.number > 20 else answer(call)) as server:
        completions = []
        with pytest.raises(EngineError, match=r"No balance\. Check the key and the account"):
            completions.extend(Pipeline(engine=open_engine(server.url), predictor="none").stream(requests(60)))
    assert {completion.error for completion in completions} == {None}


def test_a_field_that_is_wrong_in_every_row_ends_the_run(open_engine):
    """A hundred refused alike and nothing answered: the run ends instead of a million error rows."""
    with ScriptedServer(lambda call: refusal(400, "top_p must be nice")) as server:
        with pytest.raises(EngineError, match=r"Every row is refused: .*top_p must be nice"):
            run(open_engine(server.url), requests(500))
        assert len(server.calls) <= 108


def test_a_key_in_an_answer_is_hidden(open_engine):
    """A server that repeats its headers in a proper answer puts no key into the journal."""
    with ScriptedServer(lambda call: answer(call, text=call.headers["authorization"])) as server:
        found = run(open_engine(server.url, key=KEY), requests(1))
    assert found["r0"].text == "Bearer [key]"
    assert KEY not in repr(found["r0"])


def test_a_server_that_is_gone_ends_the_run(open_engine):
    """Nobody there for longer than the patience: EngineError, and no request has become an error row."""
    engine = open_engine(f"http://127.0.0.1:{free_port()}/v1", policy={"patience_s": 0.3})
    with pytest.raises(EngineError, match="can't be reached"):
        list(Pipeline(engine=engine, predictor="none").stream(requests(20)))


def test_after_the_end_of_a_run_the_engine_can_be_used_again(open_engine):
    """The server was away for a whole run and is back for the next: the same engine answers."""
    port = free_port()
    engine = open_engine(f"http://127.0.0.1:{port}/v1", policy={"patience_s": 0.5})
    with pytest.raises(EngineError):
        run(engine, requests(20))
    with ScriptedServer(port=port):
        assert {completion.error for completion in run(engine, requests(20)).values()} == {None}


def test_after_a_break_a_server_that_was_found_down_is_looked_for(open_engine):
    """The fault that shows that it is down also ends the run (the patience was over before): used again, the engine
    finds it when it is back."""
    late = {"patience_s": 0.01, "first_delay_s": 0.6, "longest_delay_s": 0.6}
    with ScriptedServer(lambda call: refusal(500, "Oops")) as server:
        engine = open_engine(server.url, concurrency=1, policy=late)
        engine.start(requests(1)[0], (), 512, None)
        wait_until(lambda: server.num_replies == 1)
        server.die()
        wait_until(lambda: engine._broken is not None)
        engine.poll(0.0)
        with pytest.raises(EngineError, match="can't be reached"):
            engine.poll(0.0)
    with ScriptedServer(port=int(server.url.split(":")[2].split("/")[0])):
        assert {completion.error for completion in run(engine, requests(5)).values()} == {None}


def test_time_between_runs_and_servers_that_are_not_needed_are_no_failure(open_engine):
    """One of two servers is away the whole time, longer than the patience: neither idling nor long answers of the other
    end a run."""
    with ScriptedServer(lambda call: Reply(body=answer(call).body, delay_s=0.6)) as server:
        engine = open_engine(server.url, f"http://127.0.0.1:{free_port()}/v1", policy={"patience_s": 0.2})
        run(engine, requests(8))
        time.sleep(0.5)
        assert {completion.error for completion in run(engine, requests(8)).values()} == {None}


def test_a_break_under_many_requests_costs_little(open_engine):
    """64 running are cut at once and the server is well again: within a few seconds all are answered, though one a
    second would be a minute; no request has lost its tries."""
    with ScriptedServer(lambda call: Reply(hangs=True)) as server:
        engine = open_engine(server.url, concurrency=64, max_retries=1, policy={"budget_per_s": 1.0})
        for request in requests(64):
            engine.start(request, (), 512, None)
        wait_until(lambda: server.running == 64)
        server.script = answer
        began_s = time.monotonic()
        server.cut_all()
        assert all(isinstance(event, Finished) for event in ends(engine, 64).values())
        assert time.monotonic() - began_s < 10.0


def test_many_that_fail_together_once_cost_little(open_engine):
    """60 requests fail together and are answered the second time: what is answered lets the next go, though the budget
    is two and one a second."""
    with ScriptedServer(lambda call: refusal(500, "Oops") if call.attempt == 1 else answer(call)) as server:
        budget = {"budget_floor": 2.0, "budget_share": 0.0, "budget_per_s": 1.0}
        began_s = time.monotonic()
        run(open_engine(server.url, concurrency=60, policy=budget), requests(60))
        assert time.monotonic() - began_s < 10.0


def test_after_an_answer_bad_rows_never_end_a_run(open_engine):
    """One row is answered, then 200 are refused: 200 error rows."""
    with ScriptedServer(lambda call: refusal(400, "Bad") if call.number > 1 else answer(call)) as server:
        found = run(open_engine(server.url, concurrency=1), requests(201))
        assert sum(completion.error is None for completion in found.values()) == 1


def test_what_failed_before_a_pause_is_forgotten(open_engine):
    """Two requests fail and are cancelled; after a pause longer than the patience a first failure ends nothing."""
    with ScriptedServer(lambda call: refusal(500, "Oops")) as server:
        engine = open_engine(server.url, policy={"patience_s": 0.3})
        for request in requests(2):
            engine.start(request, (), 512, None)
        wait_until(lambda: server.num_replies >= 2)
        for request in requests(2):
            engine.cancel(request.id)
        ends(engine, 2)
        time.sleep(0.4)
        again = [Request("again", "again")]
        server.script = lambda call: refusal(500, "Oops") if call.attempt == 1 else answer(call)
        assert {completion.error for completion in run(engine, again).values()} == {None}


def test_fewer_run_where_answers_are_late(open_engine):
    """Nothing is answered in time: without `concurrency` fewer are tried."""
    with ScriptedServer(lambda call: Reply(hangs=True)) as server:
        engine = open_engine(server.url, concurrency=None, timeout_s=0.1)
        events(engine, requests(8))
        assert engine.capabilities.max_running < 8


def test_a_server_that_still_loads_its_model_is_waited_for(open_engine):
    """Its list of models is there at once, answers are 503 for a time longer than the tries last: no error rows, and
    one request at a time asks."""
    with ScriptedServer() as server:
        ready_s = time.monotonic() + 1.0
        server.script = lambda call: refusal(503, "Loading") if call.at_s < ready_s else answer(call)
        engine = open_engine(server.url, policy={"longest_delay_s": 0.2})
        assert {completion.error for completion in run(engine, requests(30)).values()} == {None}
        assert sum(call.at_s < ready_s for call in server.calls) <= 8 + 30


def test_one_server_that_refuses_does_not_throttle_the_others(open_engine):
    """One takes two at once, the other anything: as many run as with the other alone."""

    def small(call: Call) -> Reply:
        return refusal(429, "Busy") if one.running > 2 else Reply(body=answer(call).body, delay_s=0.01)

    with ScriptedServer(small) as one, ScriptedServer(lambda call: Reply(body=answer(call).body, delay_s=0.01)) as two:
        engine = open_engine(one.url, two.url, concurrency=None)
        run(engine, requests(300))
        assert engine.capabilities.max_running >= 8
        assert len(one.calls) > 0
        assert two.most_running >= 8


def test_the_server_with_less_to_do_is_asked(open_engine):
    """A server that takes long for each answer gets fewer requests than one that doesn't."""

    def slow(call: Call) -> Reply:
        return Reply(body=answer(call).body, delay_s=0.2)

    with ScriptedServer(slow) as busy, ScriptedServer() as quick:
        run(open_engine(busy.url, quick.url, concurrency=4), requests(100))
        assert len(busy.calls) < 40
        assert len(quick.calls) > 60


def test_a_try_again_goes_to_another_server(open_engine):
    """One of two servers always fails: with one more try for each request, all are answered."""
    with ScriptedServer(lambda call: refusal(500, "Oops")) as broken, ScriptedServer() as other:
        found = run(open_engine(broken.url, other.url, max_retries=1), requests(60))
        assert {completion.error for completion in found.values()} == {None}
        assert len(broken.calls) > 5
        assert len(other.calls) == 60


def test_a_server_that_rests_leaves_the_work_to_the_others(open_engine):
    """One asks for a minute of rest at its first request: the other answers everything meanwhile."""
    with ScriptedServer(lambda call: refusal(429, "Later", retry_after="60")) as busy, ScriptedServer() as other:
        found = run(open_engine(busy.url, other.url), requests(50))
        assert {completion.error for completion in found.values()} == {None}
        assert len(busy.calls) <= 4
        assert len(other.calls) == 50


def test_a_server_that_fails_always_ends_the_run(open_engine):
    """Twenty different requests in a row without an answer: EngineError instead of a million error rows."""
    with ScriptedServer(lambda call: refusal(500, "Out of order")) as server:
        completions = []
        with pytest.raises(EngineError, match="Out of order"):
            completions.extend(
                Pipeline(engine=open_engine(server.url, max_retries=1), predictor="none").stream(requests(500))
            )
        assert len(completions) <= 20
        assert len(server.calls) <= 2 * (20 + 8)


def test_a_restart_is_waited_for(open_engine):
    """A server that dies with all that runs and comes back later: every request is answered, none twice."""
    first = ScriptedServer(lambda call: Reply(hangs=True) if call.number > 20 else answer(call))
    with first:
        engine = open_engine(first.url, max_retries=1)
        for request in requests(28):
            engine.start(request, (), 512, None)
        found = ends(engine, 20)
        wait_until(lambda: first.running == 8)
        first.die()
        time.sleep(0.1)
        assert engine.poll(0.05) == []
        with ScriptedServer(port=int(first.url.split(":")[2].split("/")[0])):
            found |= ends(engine, 8)
    assert all(isinstance(event, Finished) for event in found.values())
    assert len(found) == 28


def test_several_servers_share_the_work_and_one_may_die(open_engine):
    """Three servers are used alike; one dies in the middle, the others answer what it had."""

    def slow(call: Call) -> Reply:
        return Reply(body=answer(call).body, delay_s=0.002)

    with ScriptedServer(slow) as one, ScriptedServer(slow) as two, ScriptedServer(slow) as three:
        engine = open_engine(one.url, two.url, three.url, concurrency=12)
        pipeline = Pipeline(engine=engine, predictor="none")
        found = {}
        for num, completion in enumerate(pipeline.stream(requests(600))):
            found[completion.id] = completion
            if num == 200:
                numbers = [len(server.calls) for server in (one, two, three)]
                three.die()
        assert len(found) == 600
        assert {completion.error for completion in found.values()} == {None}
        assert min(numbers) > 40
        assert len(one.calls) + len(two.calls) >= 600 - 200


def test_cancelling_closes_the_connection_and_ends_once(open_engine):
    """Cancelled before it is sent, while it runs, and after its end: each request ends once, the server sees it go."""
    with ScriptedServer(lambda call: Reply(hangs=True) if call.prompt == "prompt 0" else answer(call)) as server:
        engine = open_engine(server.url, concurrency=1)
        asked = requests(3)
        for request in asked:
            engine.start(request, (), 512, None)
        wait_until(lambda: len(server.calls) == 1)
        engine.cancel("r2")  # waits for its turn
        engine.cancel("r0")
        found = ends(engine, 3)
        engine.cancel("r1")
        engine.cancel("never seen")
        assert is_cancelled(found["r0"])
        assert is_cancelled(found["r2"])
        assert isinstance(found["r1"], Finished)
        assert engine.poll(0.05) == []
        wait_until(lambda: server.left == 1)


def test_cancelling_at_any_moment_ends_once(open_engine):
    """Hundreds are cancelled right behind their start: each has one event, cancelled or finished."""
    with ScriptedServer() as server:
        engine = open_engine(server.url)
        for num in range(10):
            asked = [Request(f"{num}/{i}", f"prompt {i}") for i in range(40)]
            found = events(engine, asked, tuple(request.id for request in asked[num % 3 :: 2]))
            assert all(is_cancelled(event) or isinstance(event, Finished) for event in found.values())


def test_priority_runs_as_the_server_reads_it(open_engine):
    """Our higher-is-sooner becomes lower where lower is sooner; without the option no such field is sent."""
    sent = {}
    for way in ("none", "lower", "higher"):
        with ScriptedServer() as server:
            engine = open_engine(server.url, priority=way)
            for name, priority in (("sooner", 0.0), ("later", -7.0)):
                engine.start(Request(name, name), (), 512, priority)
            ends(engine, 2)
            sent[way] = {call.prompt: call.body.get("priority") for call in server.calls}
    assert sent["none"] == {"sooner": None, "later": None}
    assert sent["lower"] == {"sooner": 0, "later": 7}
    assert sent["higher"] == {"sooner": 0, "later": -7}


def test_requests_go_out_in_the_order_of_their_starts(open_engine):
    """One at a time, they reach the server as they were started, also those that were started too early."""
    with ScriptedServer() as server:
        events(open_engine(server.url, concurrency=1), requests(30))
        assert server.most_running == 1
        assert [call.prompt for call in server.calls] == [f"prompt {i}" for i in range(30)]


def test_what_json_cant_hold_fails_alone(open_engine):
    """A value that no JSON has is an error of its request."""
    asked = [Request("bad", "x", api_fields={"logit_bias": {"1": float("nan")}}), Request("good", "y")]
    with ScriptedServer() as server:
        found = events(open_engine(server.url), asked)
    assert isinstance(found["bad"], Failed)
    assert found["bad"].error.type == "invalid_request"
    assert isinstance(found["good"], Finished)


def test_what_it_cant_do_is_refused(open_engine):
    """A cap, tokens to go on from, the same id twice: EngineError, nothing is sent."""
    engine = open_engine(f"http://127.0.0.1:{free_port()}/v1")
    request = Request("r", "x", SamplingParams(), max_tokens=10)
    with pytest.raises(EngineError, match="can't cut"):
        engine.start(request, (), 5, None)
    with pytest.raises(EngineError, match="can't cut"):
        engine.start(request, (1, 2), 10, None)
    engine.start(request, (), 10, None)
    with pytest.raises(EngineError, match="already running"):
        engine.start(request, (), 10, None)
    with pytest.raises(EngineError, match="priority is inf"):
        engine.start(Request("s", "x"), (), 512, float("inf"))
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.start(Request("t", "x"), (), 512, None)


def test_closing_ends_all_and_leaves_nothing(open_engine):
    """`close` in the middle of work: connections are closed, the thread is gone, a second time does nothing."""
    before = threading.active_count()
    with ScriptedServer(lambda call: Reply(hangs=True)) as server:
        engine = open_engine(server.url)
        for request in requests(8):
            engine.start(request, (), 512, None)
        wait_until(lambda: server.running == 8)
        engine.close()
        engine.close()
        wait_until(lambda: server.left == 8)
    gc.collect()
    assert threading.active_count() == before


def test_more_at_once_are_tried(open_engine):
    """Without `concurrency` it begins with 8, and `capabilities` says when more may run; then more do."""
    with ScriptedServer(lambda call: Reply(body=answer(call).body, delay_s=0.01)) as server:
        engine = open_engine(server.url, concurrency=None)
        pipeline = Pipeline(engine=engine, predictor="none")
        numbers = [engine.capabilities.max_running for _ in pipeline.stream(requests(120))]
        assert numbers[0] == 8
        assert max(numbers) >= 16
        assert server.most_running > 8
