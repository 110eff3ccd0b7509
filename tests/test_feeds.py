"""Feeds: a run takes what is at hand, and a slow source holds up nothing that runs."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import threading

import pytest

from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.errors import UsageError
from lengthwise.feeds import AsyncFeed, IterableFeed, ThreadedFeed
from lengthwise.pipeline import Pipeline
from lengthwise.testing import recorded_lengths
from lengthwise.types import Capabilities, Completion, Request

PATIENCE_S = 20.0  # after which a test has failed: nothing here waits so long when all is well

# Writes three lines, and the other three only when it is told to.
HESITANT = f"""
import select, sys
print("a", "b", "c", sep="\\n", flush=True)
if select.select([sys.stdin], [], [], {PATIENCE_S})[0]:
    print("d", "e", "f", sep="\\n", flush=True)
"""

# Waits for lines that never come, until a signal drains the run; then ends though its feed's thread still reads.
WAITING = """
import signal
from lengthwise.engines.replay import ReplayEngine
from lengthwise.feeds import ThreadedFeed
from lengthwise.pipeline import Pipeline

pipeline = Pipeline(engine=ReplayEngine({}), window=10)
answers = pipeline.stream(ThreadedFeed(open(0, "rb", closefd=False)))
signal.signal(signal.SIGINT, lambda *_: pipeline.drain())
print("ready", flush=True)
print(list(answers))
"""


def drained(feed, num=10) -> list:
    """All that a feed gives until its end."""
    found: list = []
    while (items := feed.take(num, may_wait=True)) is not None:
        assert len(items) <= num
        found += items
    return found


def wait_until(is_so) -> None:
    """Let another thread get so far; fails when it does not."""
    waited = threading.Event()
    for _ in range(int(PATIENCE_S / 0.01)):
        if is_so():
            return
        waited.wait(0.01)
    raise AssertionError("it never comes")


class TestIterableFeed:
    def test_it_gives_all_items_and_then_none(self):
        """In order, at most as many as are asked for."""
        feed = IterableFeed(range(5))
        assert [feed.take(2, may_wait=False) for _ in range(4)] == [[0, 1], [2, 3], [4], None]

    @pytest.mark.parametrize("num", [1, 2, 10])
    def test_what_the_source_raises_comes_after_what_it_gave(self, num):
        """Once; then the feed is at its end."""

        def source():
            yield from "ab"
            raise OSError("the cable was pulled")

        feed = IterableFeed(source())
        found: list[str] = []
        while len(found) < 2:
            found += feed.take(num, may_wait=True) or ()
        assert found == ["a", "b"]
        with pytest.raises(OSError, match="pulled"):
            feed.take(num, may_wait=True)
        assert feed.take(num, may_wait=True) is None


class TestThreadedFeed:
    @pytest.mark.parametrize("max_items", [1, 3, 1000])
    def test_it_gives_all_items_and_then_none(self, max_items):
        """In order, however little it may read ahead."""
        with ThreadedFeed(range(200), max_items) as feed:
            assert drained(feed) == list(range(200))
            assert feed.take(1, may_wait=True) is None

    def test_it_reads_ahead_so_far_and_no_further(self):
        """A source without end does not fill the memory."""
        read: list[int] = []

        def source():
            for number in itertools.count():
                read.append(number)
                yield number

        with ThreadedFeed(source(), 7) as feed:
            wait_until(lambda: len(read) == 8)  # seven lie ready, the eighth waits for room
            assert feed.take(100, may_wait=False) == list(range(7))
            wait_until(lambda: len(read) == 15)

    def test_without_waiting_it_gives_what_is_at_hand(self):
        """Nothing has come: an empty list at once; the end has come: None."""
        reader, writer = os.pipe()
        with open(reader, "rb") as source, ThreadedFeed(source) as feed:
            assert feed.take(10, may_wait=False) == []
            os.write(writer, b"a\nb\n")
            assert feed.take(1, may_wait=True) == [b"a\n"]
            wait_until(lambda: feed.take(1, may_wait=False) == [b"b\n"])
            assert feed.take(10, may_wait=False) == []
            os.close(writer)
            assert drained(feed) == []

    def test_waiting_ends_after_a_moment(self):
        """So that a run whose source is silent sees that it was stopped."""
        reader, writer = os.pipe()
        with open(reader, "rb") as source, ThreadedFeed(source) as feed:
            assert feed.take(10, may_wait=True) == []
            os.close(writer)

    def test_what_the_source_raises_comes_after_what_it_gave(self):
        """Once; then the feed is at its end."""

        def source():
            yield from "ab"
            raise OSError("the cable was pulled")

        with ThreadedFeed(source(), 1) as feed:
            assert [feed.take(1, may_wait=True) for _ in range(2)] == [["a"], ["b"]]
            with pytest.raises(OSError, match="pulled"):
                drained(feed)
            assert feed.take(1, may_wait=True) is None

    def test_closing_ends_it_and_its_thread(self):
        """Also while the thread waits for room; twice is as good as once."""
        before = threading.active_count()
        feed = ThreadedFeed(itertools.count(), 2)
        wait_until(lambda: feed.take(1, may_wait=False))
        feed.close()
        feed.close()
        assert feed.take(1, may_wait=True) is None
        wait_until(lambda: threading.active_count() == before)

    def test_room_for_nothing_is_refused(self):
        """It could never read."""
        with pytest.raises(UsageError, match="max_items is 0"):
            ThreadedFeed([1], 0)


class TestInARun:
    def test_rows_run_on_while_a_real_producer_is_silent(self):
        """The producer goes on only when it has seen the answers to its first lines."""
        lengths = dict.fromkeys("012345", 40)
        child = subprocess.Popen(
            [sys.executable, "-c", HESITANT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdin is not None
        with child, ThreadedFeed(child.stdout) as feed:
            answers = Pipeline(engine=ReplayEngine(lengths), window=2).stream(feed)
            first = {next(answers).id for _ in range(3)}
            child.stdin.write("go on\n")
            child.stdin.flush()
            rest = [answer.id for answer in answers]
        assert first == {"0", "1", "2"}
        assert sorted(rest) == ["3", "4", "5"]

    def test_a_signal_ends_a_run_that_waits_for_its_source(self):
        """Standard input stays open and silent: draining is seen, and the thread in it does not hold the program."""
        child = subprocess.Popen(
            [sys.executable, "-c", WAITING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGINT)
        try:
            assert child.wait(PATIENCE_S) == 0
        finally:
            child.kill()
        told, complained = child.communicate()
        assert (told, complained) == (b"[]\n", b"")

    def test_without_a_window_a_slow_source_is_read_to_its_end_first(self):
        """Then all doubled ids are found, and the longest of all starts first."""
        lengths = {"a": 5, "b": 9}
        reader, writer = os.pipe()

        class Watched(ReplayEngine):
            def start(self, *arguments):
                assert is_complete.is_set()
                super().start(*arguments)

        is_complete = threading.Event()

        def write():
            os.write(writer, b"a\n")
            threading.Event().wait(0.3)  # longer than a feed waits
            is_complete.set()
            os.write(writer, b"b\n")
            os.close(writer)

        threading.Thread(target=write).start()
        with open(reader, encoding="utf-8") as source:
            requests = ThreadedFeed(Request(line.strip(), "prompt") for line in source)
            answers = Pipeline(engine=Watched(lengths)).run(requests)
        assert {answer.id: answer.completion_tokens for answer in answers} == lengths

    @pytest.mark.parametrize("make_feed", [IterableFeed, ThreadedFeed])
    @pytest.mark.parametrize("in_order", [False, True])
    def test_what_a_source_raises_comes_when_all_before_it_is_answered(self, make_feed, in_order):
        """With a window: what waits and what runs is finished, then the caller sees the source's own error. A next run
        gets its answers."""
        lengths = recorded_lengths(20)
        pipeline = Pipeline(engine=ReplayEngine(lengths, ReplayConfig(Capabilities(max_running=2))), window=3)
        requests = [Request(name, "prompt") for name in lengths]

        def source():
            yield from requests[:10]
            raise OSError("the cable was pulled")

        found: list[Completion] = []
        with pytest.raises(OSError, match="pulled"):
            found.extend(pipeline.stream(make_feed(source()), in_order))
        assert sorted(answer.id for answer in found) == sorted(list(lengths)[:10])
        assert len(pipeline.run(requests)) == len(lengths)

    def test_without_a_window_what_a_source_raises_comes_before_anything_begins(self):
        """No work is done for a caller who will have to repeat it."""

        class Untouched(ReplayEngine):
            def start(self, *arguments):
                raise AssertionError

        def source():
            yield Request("a", "prompt")
            raise OSError("the cable was pulled")

        with pytest.raises(OSError, match="pulled"):
            Pipeline(engine=Untouched({"a": 5})).run(source())

    def test_what_a_source_raises_is_not_lost_when_the_run_is_stopped(self):
        """It would look as if all had been read."""
        pipeline = Pipeline(engine=ReplayEngine(dict.fromkeys("abcd", 5)), window=10)

        def source():
            yield from (Request(name, "prompt") for name in "abcd")
            raise OSError("the cable was pulled")

        def stop_at_the_first_answer():
            for _ in pipeline.stream(source()):
                pipeline.stop()

        with pytest.raises(OSError, match="pulled"):
            stop_at_the_first_answer()


class TestAsyncFeed:
    def test_a_fast_source_waits_for_room(self):
        """It is read no further than its buffer, and all of it comes."""
        num_read = 0

        async def source():
            nonlocal num_read
            for num_read in range(1, 51):
                yield num_read

        async def read():
            feed: AsyncFeed[int] = AsyncFeed(4)
            reading = asyncio.ensure_future(feed.read(source()))
            found: list[int] = []
            while (items := await asyncio.to_thread(feed.take, 3, True)) is not None:
                found += items
                assert num_read <= len(found) + 4 + 1
            await reading
            return found

        assert asyncio.run(read()) == list(range(1, 51))

    def test_an_asynchronous_source_feeds_a_run_that_does_not_wait_for_it(self):
        """It goes on only when the answers to its first requests are out."""
        lengths = {name: 30 for name in "abcd"}
        pipeline = Pipeline(engine=ReplayEngine(lengths), window=10)

        async def answered():
            got_first = asyncio.Event()
            found = []

            async def source():
                for name in "ab":
                    yield Request(name, "prompt")
                await asyncio.wait_for(got_first.wait(), PATIENCE_S)
                for name in "cd":
                    yield Request(name, "prompt")

            async for answer in pipeline.astream(source()):
                found.append(answer.id)
                if len(found) == 2:
                    got_first.set()
            return found

        found = asyncio.run(answered())
        assert (sorted(found[:2]), sorted(found[2:])) == (["a", "b"], ["c", "d"])

    def test_what_an_asynchronous_source_raises_reaches_the_caller(self):
        """When all before it is answered."""
        found = []

        async def source():
            yield Request("a", "prompt")
            raise OSError("the cable was pulled")

        async def answered():
            async with Pipeline(engine=ReplayEngine({"a": 5}), window=1) as pipeline:
                async for answer in pipeline.astream(source()):
                    found.append(answer.id)

        with pytest.raises(OSError, match="pulled"):
            asyncio.run(answered())
        assert found == ["a"]
