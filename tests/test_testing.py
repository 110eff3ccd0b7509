"""The conformance checks see faults: what ships for others to check with must not pass everything."""

from __future__ import annotations

import pytest

from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.scheduling.arrival import ArrivalScheduler
from lengthwise.testing import check_engine, check_scheduler, recorded_lengths
from lengthwise.types import Capabilities, Cut, Finished, Progress, Request, Start


class Faulty(ArrivalScheduler):
    def __init__(self, fault: str) -> None:
        super().__init__(8)
        self.fault = fault

    def remove(self, request_ids):
        if self.fault != "forgets to remove":
            super().remove(request_ids)

    def decide(self, view):
        starts = super().decide(view)
        if self.fault == "last first":
            return starts[::-1]
        if self.fault == "too many rows" and starts and self._fresh:
            return [*starts, *(Start(r.id, r.max_tokens) for r in [self._fresh.popleft()])]
        if self.fault == "cap of nothing":
            return [Start(start.id, view.waiting[start.id].num_tokens) for start in starts]
        if self.fault == "drops a request" and len(starts) > 1:
            return starts[:-1]
        return starts


@pytest.mark.parametrize(
    "fault", ["forgets to remove", "last first", "too many rows", "cap of nothing", "drops a request"]
)
def test_a_faulty_scheduler_is_seen(fault):
    """Arrival order passes; with any one fault it does not."""
    check_scheduler(lambda: Faulty("none"))
    with pytest.raises(Exception, match=r"."):
        check_scheduler(lambda: Faulty(fault))


class FaultyEngine(ReplayEngine):
    def __init__(self, lengths, fault: str) -> None:
        super().__init__(lengths)
        self.fault = fault

    def poll(self, timeout_s):
        events = super().poll(timeout_s)
        if self.fault == "reports twice":
            return events + [event for event in events if isinstance(event, Finished)][:1]
        if self.fault == "counts one more":
            return [
                Finished(e.id, e.text, e.finish_reason, e.completion_tokens + 1) if isinstance(e, Finished) else e
                for e in events
            ]
        if self.fault == "cancels silently":
            return [event for event in events if not (isinstance(event, Cut) and event.reason == "cancelled")]
        return events


@pytest.mark.parametrize("fault", ["reports twice", "counts one more", "cancels silently"])
def test_a_faulty_engine_is_seen(fault):
    """The replay engine passes; with any one fault it does not."""
    lengths = recorded_lengths(12)
    requests = [Request(name, "prompt") for name in lengths]
    check_engine(FaultyEngine(lengths, "none"), requests)
    with pytest.raises(AssertionError):
        check_engine(FaultyEngine(lengths, fault), requests)


def test_the_replay_engine_reports_progress_as_its_capabilities_say():
    """Of every row with an end, in order of their starts, when the interval is over; or none."""
    for interval_s, reports_progress in ((0.0, True), (0.5, True), (0.0, False)):
        capabilities = Capabilities(max_running=3, reports_progress=reports_progress)
        config = ReplayConfig(capabilities, progress_interval_s=interval_s)
        engine = ReplayEngine({"a": 9, "b": 2, "c": 5}, config)
        for name in "abc":
            engine.start(Request(name, "prompt"), (), 512, None)
        ended = Finished("b", "b: 2 tokens", "stop", 2)
        progress = [Progress("a", 2), Progress("c", 2)] if reports_progress and not interval_s else []
        assert engine.poll(1.0) == [ended, *progress]


def test_the_replay_engine_ends_rows_together_that_end_at_one_step():
    """In order of their starts, also beside one that was cancelled and started again."""
    engine = ReplayEngine(dict.fromkeys("abcd", 6), ReplayConfig(Capabilities(max_running=4, reports_progress=False)))
    for name in "abc":
        engine.start(Request(name, "prompt"), (), 512, None)
    engine.cancel("b")
    assert engine.poll(1.0) == [Cut("b", (), "cancelled")]
    engine.start(Request("b", "prompt"), (), 4, None)
    engine.start(Request("d", "prompt"), (0, 1), 512, None)
    assert engine.poll(1.0) == [Cut("b", (0, 1, 2, 3)), Finished("d", "d: 6 tokens", "stop", 6)]
    assert [event.id for event in engine.poll(1.0)] == ["a", "c"]
    assert (engine.num_steps, engine.num_row_steps) == (6, 4 * 4 + 2 * 2)


def test_the_replay_engine_goes_on_to_the_next_end_when_the_first_was_cancelled():
    """Whatever order its rows are kept in."""
    engine = ReplayEngine({"a": 2, "b": 10, "c": 3})
    for name in "abc":
        engine.start(Request(name, "prompt"), (), 512, None)
    engine.cancel("a")
    engine.poll(1.0)
    assert [engine.poll(1.0)[0].id for _ in range(2)] == ["c", "b"]


def test_the_replayed_engine_makes_room_only_when_it_says_so():
    """Two rows of 100 tokens in a memory of 150: the second comes back when the memory is full, with its tokens, and
    ends when it goes on alone. An engine that promises nothing goes beyond."""
    lengths = {"a": 100, "b": 100}
    for makes_room in (True, False):
        engine = ReplayEngine(lengths, ReplayConfig(Capabilities(2, kv_tokens=150, makes_room=makes_room)))
        for name in lengths:
            engine.start(Request(name, "x"), (), 512, None)
        events = [event for event in engine.poll(1.0) + engine.poll(1.0) if not isinstance(event, Progress)]
        if not makes_room:
            assert [type(event) for event in events] == [Finished, Finished]
            continue
        (cut,) = events
        assert (cut.id, cut.reason) == ("b", "memory")
        assert 2 * (1 + len(cut.tokens)) <= 150 < 2 * (2 + len(cut.tokens))
        assert [event.id for event in engine.poll(1.0) if isinstance(event, Finished)] == ["a"]
        engine.start(Request("b", "x"), cut.tokens, 512, None)
        assert [event.completion_tokens for event in engine.poll(1.0) if isinstance(event, Finished)] == [100]
