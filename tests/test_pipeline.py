"""The main loop: every request ends exactly once, whatever predictor, scheduler and engine do."""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.errors import EngineError, UsageError
from lengthwise.estimates import GRID, LengthEstimates
from lengthwise.feeds import ThreadedFeed
from lengthwise.intake import request_seed
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.provenance import Provenance
from lengthwise.scheduling.arrival import ArrivalScheduler
from lengthwise.testing import FakeHTTPEngine, NoisyOracle, WatchedEngine, check_engine, recorded_lengths
from lengthwise.types import Capabilities, Completion, ErrorInfo, Finished, Preempt, Request, SamplingParams, Start

LENGTHS = recorded_lengths(100)
REQUESTS = [Request(name, f"prompt {name}") for name in LENGTHS]
SCHEDULES = ("arrival", "paper", "grouped", "default")


def replay(lengths=LENGTHS, **capabilities) -> ReplayEngine:
    return ReplayEngine(lengths, ReplayConfig(Capabilities(**{"max_running": 8, **capabilities})))


def of(lengths) -> list[Request]:
    return [Request(name, f"prompt {name}") for name in lengths]


def answer_lengths(answers) -> dict[str, int]:
    return {answer.id: answer.completion_tokens for answer in answers}


EXPECTED = {name: min(length, 512) for name, length in LENGTHS.items()}


def is_by_length(started: list[str]) -> bool:
    """The longer half starts earlier, on average by a quarter of all or more."""
    places = {name: place for place, name in enumerate(started)}
    assert places.keys() == LENGTHS.keys()
    ranked = [places[name] for name in sorted(LENGTHS, key=EXPECTED.__getitem__)]
    half = len(ranked) // 2
    return sum(ranked[:half]) / half - sum(ranked[half:]) / half > len(ranked) / 4


class TestOneLoopForAllEngines:
    """The same scheduler objects drive an engine with rows and caps, and one that is a server behind HTTP."""

    @pytest.mark.parametrize("schedule", SCHEDULES)
    @pytest.mark.parametrize("make_engine", [replay, lambda: FakeHTTPEngine(LENGTHS)], ids=["replay", "fake-http"])
    def test_answers_stand_in_input_order_and_are_whole(self, schedule, make_engine):
        """`run` gives each request its own answer, at its own place, with all of its tokens."""
        pipeline = Pipeline(engine=make_engine(), predictor=NoisyOracle(LENGTHS, 0.6), scheduler=schedule)
        answers = pipeline.run(REQUESTS)
        assert [answer.id for answer in answers] == list(LENGTHS)
        assert answer_lengths(answers) == EXPECTED
        assert all(answer.text.startswith(f"{answer.id}:") for answer in answers)

    def test_an_engine_that_cannot_cut_is_never_asked_to(self, caplog):
        """Without the capability there are no caps and no recomputation, and that is said."""
        caplog.set_level("INFO", "lengthwise")
        pipeline = Pipeline(engine=FakeHTTPEngine(LENGTHS), predictor=NoisyOracle(LENGTHS, 0.6), scheduler="default")
        answers = pipeline.run(REQUESTS)
        assert {answer.recomputed_tokens for answer in answers} == {0}
        assert "can't cut" in caplog.text

    def test_an_engine_that_cannot_continue_starts_again_and_the_waste_is_counted(self):
        """What was written before a cut is thrown away and counted where an engine can't take it back."""

        class Capped(ArrivalScheduler):
            def decide(self, view):
                return [
                    Start(d.id, d.cap if view.waiting[d.id].num_cuts else min(d.cap, 50)) for d in super().decide(view)
                ]

        engine = replay(can_continue=False)
        answers = Pipeline(engine=engine, predictor="none", scheduler=Capped(8)).run(REQUESTS)
        assert answer_lengths(answers) == EXPECTED
        for answer in answers:
            assert answer.recomputed_tokens == (50 if EXPECTED[answer.id] > 50 else 0)

    def test_the_replay_engine_and_the_fake_server_keep_the_engine_contract(self):
        """The fakes pass the checks that real engines pass."""
        check_engine(replay(), REQUESTS[:20])
        check_engine(FakeHTTPEngine(LENGTHS), REQUESTS[:20])


class TestEstimates:
    def test_what_was_predicted_stands_in_the_answer(self):
        """Each answer carries the median and the 90 % quantile that it was scheduled by, within its limit."""
        answers = Pipeline(engine=replay(), predictor=NoisyOracle(LENGTHS, 0.0)).run(REQUESTS)
        for answer in answers:
            assert answer.predicted is not None
            assert answer.predicted.p50 == answer.predicted.p90 == min(LENGTHS[answer.id], 512)

    def test_where_nothing_was_predicted_nothing_is_said(self):
        """Without estimates an answer carries none: the limit is no prediction."""
        answers = Pipeline(engine=replay(), predictor="none").run(REQUESTS)
        assert {answer.predicted for answer in answers} == {None}

    @pytest.mark.parametrize("value", [math.nan, -1.0, 2.0])
    def test_broken_estimates_cost_no_answer(self, value):
        """NaN, negative and impossible curves are "nothing is known": arrival order, no caps, every answer whole."""

        class Broken(NoisyOracle):
            def predict(self, requests):
                return LengthEstimates.from_survival(np.full((len(requests), len(GRID)), value))

        engine = WatchedEngine(replay())
        answers = Pipeline(engine=engine, predictor=Broken({}, 0)).run(REQUESTS)
        assert answer_lengths(answers) == EXPECTED
        assert engine.started == list(LENGTHS)

    @pytest.mark.parametrize("broken", ["raises", "too few"])
    def test_a_predictor_that_fails_costs_no_answer(self, broken, caplog):
        """A predictor that raises, or leaves requests out, is passed over with a warning."""

        class Broken(NoisyOracle):
            def predict(self, requests):
                if broken == "raises":
                    raise RuntimeError("no")
                return LengthEstimates.unknown(1)

        answers = Pipeline(engine=replay(), predictor=Broken({}, 0)).run(REQUESTS)
        assert answer_lengths(answers) == EXPECTED
        assert "Broken" in caplog.text

    def test_a_predictor_of_another_model_is_not_used(self, caplog):
        """Lengths learned from one model say nothing sure of another: arrival order and no caps."""
        predictor = NoisyOracle(LENGTHS, 0.0)
        predictor.model = "another model"
        engine = WatchedEngine(replay())
        Pipeline(engine=engine, predictor=predictor).run(REQUESTS)
        assert engine.started == list(LENGTHS)
        assert "another model" in caplog.text

    def test_one_that_does_not_tell_whose_answers_it_learned_from_is_used_and_that_is_said(self, caplog):
        """A trained one, that is: lengths that were given hold for any model, and nothing is to be said of them."""
        predictor = NoisyOracle(LENGTHS, 0.0)
        predictor.learned_from = Provenance(None, 1, 0, "answer", 0, (), "0", "0")
        with caplog.at_level("INFO"):
            engine = WatchedEngine(replay())
            Pipeline(engine=engine, predictor=predictor).run(REQUESTS)
            assert is_by_length(engine.started)
            assert "replay's are taken for granted" in caplog.text
            caplog.clear()
            Pipeline(engine=replay(), predictor="constant:9")
        assert "taken for granted" not in caplog.text

    def test_remaining_tokens_are_known_while_it_runs(self):
        """The expected rest falls to nothing as answers come in; with exact lengths it starts at their sum."""
        pipeline = Pipeline(engine=replay(), predictor=NoisyOracle(LENGTHS, 0.0))
        rest = []
        for _ in pipeline.stream(REQUESTS):
            rest.append(pipeline.counts.predicted_remaining_tokens)
        assert rest[0] <= sum(EXPECTED.values())
        assert rest[0] > 0.7 * sum(EXPECTED.values())  # the eight longest are partly written by then
        assert rest == sorted(rest, reverse=True)
        assert rest[-1] == pytest.approx(0, abs=1)
        assert pipeline.counts.written_tokens == 0
        assert pipeline.counts.completion_tokens == sum(EXPECTED.values())


class TestErrors:
    def test_a_request_that_cannot_run_is_an_error_and_the_others_go_on(self):
        """What `prepare` refuses comes back as an error that names its cause."""
        answers = Pipeline(engine=replay()).run([Request("lost", "no length"), *REQUESTS])
        assert answers[0].error is not None
        assert answers[0].error.type == "no_recorded_length"
        assert answers[0].finish_reason == "error"
        assert answer_lengths(answers[1:]) == EXPECTED

    def test_doubled_ids_are_refused(self):
        """Two requests with one id can't both get their answer."""
        with pytest.raises(UsageError, match="'r1'"):
            Pipeline(engine=replay()).run([Request("r1", "a"), Request("r1", "b")])

    def test_a_scheduler_that_never_starts_anything_is_found_out(self):
        """No endless loop: the error names the scheduler."""

        class Lazy(ArrivalScheduler):
            def decide(self, view):
                return []

        with pytest.raises(EngineError, match="Lazy"):
            Pipeline(engine=replay(), predictor="none", scheduler=Lazy(8)).run(REQUESTS)

    def test_an_engine_that_fails_one_request_loses_no_other(self):
        """Failed becomes an error completion."""
        from lengthwise.types import ErrorInfo, Failed

        class Flaky(ReplayEngine):
            def poll(self, timeout_s):
                return [
                    Failed(e.id, ErrorInfo("nan_logits", "broken")) if getattr(e, "text", "").startswith("r5:") else e
                    for e in super().poll(timeout_s)
                ]

        answers = Pipeline(engine=Flaky(LENGTHS)).run(REQUESTS)
        assert {a.id for a in answers if a.error} == {"r5"}
        assert answer_lengths(a for a in answers if not a.error) == {k: v for k, v in EXPECTED.items() if k != "r5"}

    @pytest.mark.parametrize(
        ("item", "told"),
        [
            ({"prompt": "x", "max_tokens": 0}, "max_tokens is 0"),
            ({"prompt": "x", "max_tokens": "5"}, "max_tokens is '5'"),
            ({"prompt": None}, "prompt is None"),
            ({"prompt": ["hi"]}, "prompt is ('hi',)"),
            ({"prompt": "x", "temprature": 1}, "temprature"),
            ({"prompt": "x", "temperature": "hot"}, "temperature is 'hot'"),
            ({"prompt": "x", "sampling": {"temperature": 1}}, "sampling is {'temperature': 1}"),
            ({}, "prompt"),
            (7, "is 7"),
            ({"prompt": "x", "metadata": 5}, "metadata is 5"),
            ({"prompt": "x", "api_fields": [1]}, "api_fields is [1]"),
            ({"prompt": "x", "is_raw": "yes"}, "is_raw is 'yes'"),
            ({"prompt": "x", "stop": 5}, "stop is 5"),
            ({"prompt": "x", "api_fields": {5: 1, "n": 2}}, "5 is 1"),
        ],
    )
    def test_what_is_no_request_is_an_error_and_the_others_go_on(self, item, told):
        """It keeps its place; the message has the value."""
        pipeline = Pipeline(engine=replay({**LENGTHS, "3": 5}))
        answers = pipeline.run([*REQUESTS[:3], item, *REQUESTS[3:]])
        assert answers[3].error is not None
        assert answers[3].error.type in ("invalid_request", "unsupported_parameter")
        assert told in answers[3].error.message
        assert answer_lengths([*answers[:3], *answers[4:]]) == EXPECTED
        assert (pipeline.counts.num_failed, pipeline.counts.num_finished) == (1, len(REQUESTS) + 1)

    @pytest.mark.parametrize("requests", ["Tell me", b"Tell me", {"prompt": "Tell me"}, REQUESTS[0], None, 5])
    def test_what_is_no_list_of_requests_is_refused(self, requests):
        """The letters or fields of one prompt would be answered."""
        with pytest.raises(UsageError, match="must be a list"):
            Pipeline(engine=replay()).run(requests)

    def test_an_asynchronous_source_is_sent_to_the_asynchronous_methods(self):
        """`run` and `stream` can't read it."""

        async def source():
            yield "Tell me"

        with pytest.raises(UsageError, match="astream or arun"):
            Pipeline(engine=replay()).run(source())

    def test_a_number_that_is_another_request_s_id_is_told(self):
        """What has no id is numbered from 0; the message says so, for nobody wrote that id twice."""
        with pytest.raises(UsageError, match=r"'0'.*numbered from 0"):
            Pipeline(engine=replay()).run(["a", {"id": "0", "prompt": "x"}])

    def test_an_unknown_scheduler_and_a_closed_pipeline_are_refused(self):
        """At once, by name."""
        with pytest.raises(UsageError, match=r"'shortest'.*refill"):
            Pipeline(engine=replay(), scheduler="shortest")
        with Pipeline(engine=replay()) as pipeline:
            pass
        with pytest.raises(UsageError, match="closed"):
            pipeline.run(REQUESTS)

    @pytest.mark.parametrize("window", [0, -1])
    def test_a_window_for_nothing_is_refused(self, window):
        """It would lose every request."""
        with pytest.raises(UsageError, match=f"window is {window}"):
            Pipeline(engine=replay(), window=window)

    @pytest.mark.parametrize("where", ["prepare", "start", "poll"])
    def test_whatever_breaks_in_an_engine_is_an_engine_error(self, where):
        """It names what happened; the engine is left empty, so that a next run gets its answers."""

        class Breaking(ReplayEngine):
            num_left = 3

            def broken(self, name):
                self.num_left -= name == where
                if name == where and self.num_left == 0:
                    raise RuntimeError("CUDA error: an illegal memory access\nand more")

            def prepare(self, requests):
                self.broken("prepare")
                return super().prepare(requests)

            def start(self, *arguments):
                self.broken("start")
                super().start(*arguments)

            def poll(self, timeout_s):
                self.broken("poll")
                return super().poll(timeout_s)

        pipeline = Pipeline(engine=Breaking(LENGTHS, ReplayConfig(Capabilities(max_running=8))), window=10)
        with pytest.raises(EngineError, match=r"RuntimeError: CUDA error: an illegal memory access\.$"):
            pipeline.run(REQUESTS)
        assert answer_lengths(pipeline.run(REQUESTS)) == EXPECTED

    @pytest.mark.parametrize(("broken", "told"), [(ZeroDivisionError, "division"), (EngineError, "on fire")])
    def test_an_engine_that_can_not_cancel_hides_no_error(self, broken, told):
        """What went wrong first is raised; where nothing had, what went wrong in cancelling."""

        class Broken(ReplayEngine):
            def cancel(self, request_id):
                raise RuntimeError("no cancelling here")

        class BrokenScheduler(ArrivalScheduler):
            def decide(self, view):
                if view.running:
                    raise broken(told)
                return super().decide(view)

        def answers(scheduler):
            return Pipeline(engine=Broken(LENGTHS), predictor="none", scheduler=scheduler).stream(REQUESTS)

        with pytest.raises(broken, match=told):
            list(answers(BrokenScheduler(8)))
        left = answers(ArrivalScheduler(8))
        next(left)
        with pytest.raises(EngineError, match="RuntimeError: no cancelling here"):
            left.close()

    def test_an_engine_that_breaks_when_a_row_is_put_back_is_an_engine_error(self):
        """As wherever else it breaks."""

        class Broken(ReplayEngine):
            def cancel(self, request_id):
                raise RuntimeError("no cancelling here")

        class Preempting(ArrivalScheduler):
            def decide(self, view):
                return [Preempt(name) for name in view.running] or super().decide(view)

        with pytest.raises(EngineError, match="RuntimeError: no cancelling here"):
            Pipeline(engine=Broken(LENGTHS), predictor="none", scheduler=Preempting(8)).run(REQUESTS)

    @pytest.mark.parametrize("can_preempt", [True, False])
    def test_an_engine_that_never_lets_its_rows_go_is_not_waited_for_for_ever(self, can_preempt, monkeypatch):
        """One that gives tokens back is to do so at once; any other is given a while."""
        monkeypatch.setattr("lengthwise.loop.loop.MAX_SILENCE_S", 0.1)

        class Silent(ReplayEngine):
            num_polls = 0

            def poll(self, timeout_s):
                if not self._cancelled:
                    return super().poll(timeout_s)
                self.num_polls += 1
                threading.Event().wait(0.01)
                return []

        engine = Silent(LENGTHS, ReplayConfig(Capabilities(max_running=8, can_preempt=can_preempt)))
        answers = Pipeline(engine=engine, predictor="none").stream(REQUESTS)
        next(answers)
        with pytest.raises(EngineError, match="lost 7 requests"):
            answers.close()
        assert (engine.num_polls == 1) == can_preempt

    def test_a_predictor_that_can_not_learn_costs_no_answer(self, caplog):
        """What it raises is said."""

        class Stubborn(NoisyOracle):
            def observe(self, requests, completions):
                raise RuntimeError("no")

        assert answer_lengths(Pipeline(engine=replay(), predictor=Stubborn(LENGTHS, 0)).run(REQUESTS)) == EXPECTED
        assert "Stubborn" in caplog.text

    def test_model_and_engine_exclude_each_other(self):
        """An engine has its model; a second one would be silently dropped."""
        with pytest.raises(UsageError, match="not both"):
            Pipeline("some/model", engine=replay())


class TestStreaming:
    def test_texts_and_mappings_become_requests(self):
        """Three lines of Python are enough: texts get ids that count from 0."""
        answers = Pipeline(engine=replay({"0": 5, "x": 7})).run(["hello", {"id": "x", "prompt": "b", "max_tokens": 3}])
        assert answer_lengths(answers) == {"0": 5, "x": 3}
        assert [answer.finish_reason for answer in answers] == ["stop", "length"]

    def test_mappings_may_have_messages_and_sampling_parameters(self):
        """As a row of a job's file."""
        seen = []

        class Recording(ReplayEngine):
            def start(self, request, *rest):
                seen.append(request)
                super().start(request, *rest)

        item = {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0.7, "stop": "END", "seed": 3}
        (answer,) = Pipeline(engine=Recording({"0": 5})).run([item])
        assert answer.completion_tokens == 5
        assert seen[0].prompt == ({"role": "user", "content": "Hi"},)
        assert seen[0].sampling == SamplingParams(temperature=0.7, stop=("END",), seed=3)

    def test_what_is_none_is_left_out(self):
        """Of mappings: an id is given then, and settings have their defaults."""
        seen = []

        class Recording(ReplayEngine):
            def start(self, request, *rest):
                seen.append(request)
                super().start(request, *rest)

        fields = ("id", "messages", "stop", "temperature", "top_p", "seed", "max_tokens", "metadata", "is_raw")
        Pipeline(engine=Recording({"0": 5})).run([{**dict.fromkeys(fields), "prompt": "x"}])
        assert seen == [Request("0", "x")]

    def test_a_window_reads_no_further_ahead_than_it_says(self):
        """With a window, at most so many requests wait while the source goes on."""
        taken = 0

        def source():
            nonlocal taken
            for request in REQUESTS:
                taken += 1
                yield request

        pipeline = Pipeline(engine=replay(), scheduler="arrival", window=10)
        seen = 0
        for _ in pipeline.stream(source()):
            seen += 1
            assert taken <= seen + 8 + 2 * 10
        assert seen == len(REQUESTS)

    def test_a_window_smaller_than_the_engine_leaves_no_row_empty(self):
        """As many are read as the engine runs at once."""
        engine = replay()
        Pipeline(engine=engine, scheduler="arrival", predictor="none", window=1).run(REQUESTS)
        whole = replay()
        Pipeline(engine=whole, scheduler="arrival", predictor="none").run(REQUESTS)
        assert engine.num_steps == whole.num_steps

    def test_stopping_leaves_the_engine_empty(self):
        """After `stop`, or when the iterator is closed, no row of the old run is left; a new run gets its answers."""
        engine = WatchedEngine(replay())
        pipeline = Pipeline(engine=engine)
        for _ in pipeline.stream(REQUESTS):
            pipeline.stop()
        next(iter(pipeline.stream(REQUESTS)))
        assert answer_lengths(pipeline.run(REQUESTS)) == EXPECTED

    def test_leaving_among_answers_that_ended_together_leaves_the_engine_empty(self):
        """All eight end in one step, one is taken; the next run gets its answers."""
        lengths = dict.fromkeys(LENGTHS, 7)
        pipeline = Pipeline(engine=WatchedEngine(replay(lengths)))
        stream = pipeline.stream(REQUESTS)
        next(stream)
        stream.close()
        assert answer_lengths(pipeline.run(REQUESTS)) == lengths

    def test_a_stream_may_outlive_its_pipeline(self):
        """A closed engine has no rows to give back: collecting the iterator then must not wait for them."""
        with Pipeline(engine=replay()) as pipeline:
            stream = pipeline.stream(REQUESTS)
            next(stream)
        stream.close()
        assert next(stream, None) is None

    @pytest.mark.parametrize("in_order", [False, True])
    @pytest.mark.parametrize("num_taken", [0, 1, 5])
    def test_a_run_of_a_pipeline_that_was_closed_ends_with_an_error(self, num_taken, in_order):
        """Its caller is told, and the engine is not asked for anything any more: also where the last answer was that of
        a request that could not begin."""

        class Closable(ReplayEngine):
            is_closed = False

            def start(self, *arguments):
                assert not self.is_closed
                super().start(*arguments)

            def poll(self, timeout_s):
                assert not self.is_closed
                return super().poll(timeout_s)

            def close(self):
                self.is_closed = True

        with Pipeline(engine=Closable(LENGTHS), window=20) as pipeline:
            answers = pipeline.stream([Request("lost", "no length"), *REQUESTS], in_order)
            for _ in range(num_taken):
                next(answers)
        with pytest.raises(UsageError, match="closed before its run had ended"):
            list(answers)

    @pytest.mark.parametrize("window", [None, 1])
    def test_closing_after_the_last_answer_is_no_error(self, window):
        """Nothing was left to do."""
        pipeline = Pipeline(engine=replay(), window=window)
        num_answers = 0
        for _ in pipeline.stream(REQUESTS):
            num_answers += 1
            if num_answers == len(REQUESTS):
                pipeline.close()
        assert num_answers == len(REQUESTS)

    def test_a_cancelled_async_caller_stops_the_run(self):
        """The caller goes away while the engine works: the engine is empty then, and a next run gets its answers."""
        config = ReplayConfig(Capabilities(max_running=8), is_paced=True, step_fixed_s=0.01)
        pipeline = Pipeline(engine=WatchedEngine(ReplayEngine(LENGTHS, config)))

        async def leave():
            async for _ in pipeline.astream(REQUESTS):
                pass

        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(leave(), 0.3))
        pipeline.engine._engine._config = replace(config, is_paced=False)
        assert answer_lengths(pipeline.run(REQUESTS)) == EXPECTED

    def test_async_gives_the_same_answers(self):
        """`astream` yields what `stream` yields."""

        async def collect():
            return [answer async for answer in Pipeline(engine=replay()).astream(REQUESTS)]

        assert answer_lengths(asyncio.run(collect())) == EXPECTED

    def test_seeds_are_given_by_job_seed_and_id(self):
        """A request without a seed gets one, where noise is drawn, that depends on nothing but the job's seed and its
        id; its own is kept."""
        seen: dict[str, int | None] = {}

        class Recording(ReplayEngine):
            def start(self, request, tokens_so_far, cap, priority):
                seen[request.id] = request.sampling.seed
                super().start(request, tokens_so_far, cap, priority)

        drawn = [replace(request, sampling=SamplingParams(temperature=1.0)) for request in REQUESTS[:50]]
        drawn[7] = drawn[7].with_seed(11)
        Pipeline(engine=Recording(LENGTHS), seed=3).run([*drawn, *REQUESTS[50:]])
        expected = {request.id: request_seed(3, request.id) for request in drawn}
        assert seen == expected | {drawn[7].id: 11} | {request.id: None for request in REQUESTS[50:]}
        assert len(set(expected.values())) == len(expected)

    def test_what_a_server_tells_with_the_answer_reaches_the_caller(self):
        """Its own count of the prompt's tokens, and its response body."""

        class Server(ReplayEngine):
            def poll(self, timeout_s):
                return [
                    replace(e, prompt_tokens=99, response={"choices": []}) if isinstance(e, Finished) else e
                    for e in super().poll(timeout_s)
                ]

        (answer,) = Pipeline(engine=Server(LENGTHS)).run(REQUESTS[:1])
        assert (answer.prompt_tokens, answer.response) == (99, {"choices": []})

    def test_a_completion_is_passed_through(self):
        """What can't be a request keeps its place, and is counted as failed."""
        lost = Completion("lost", "", "error", error=ErrorInfo("invalid_json", "no", 4), metadata={"a": 1})
        pipeline = Pipeline(engine=replay(), window=5)
        answers = pipeline.run([*REQUESTS[:7], lost, *REQUESTS[7:]])
        assert answers[7] == lost
        assert answer_lengths(answers) == EXPECTED | {"lost": 0}
        assert (pipeline.counts.num_failed, pipeline.counts.num_finished) == (1, len(REQUESTS) + 1)

    def test_an_array_of_texts_is_a_list_of_them(self):
        """Arrays have a `take` of their own; that does not make them feeds."""
        answers = Pipeline(engine=replay({"0": 5, "1": 6})).run(np.array(["a", "b"]))
        assert answer_lengths(answers) == {"0": 5, "1": 6}

    def test_a_second_run_is_refused_while_one_goes_on(self):
        """Each would take the other's events; when the first is closed the second gets its answers."""
        pipeline = Pipeline(engine=replay())
        first = pipeline.stream(REQUESTS)
        next(first)
        with pytest.raises(UsageError, match="one at a time"):
            pipeline.run(REQUESTS)
        assert len(list(first)) == len(REQUESTS) - 1
        assert answer_lengths(pipeline.run(REQUESTS)) == EXPECTED


class TestOrder:
    @pytest.mark.parametrize("window", [None, 1, 10])
    @pytest.mark.parametrize("schedule", ["default", "arrival"])
    def test_each_answer_is_out_as_soon_as_it_and_all_before_it_are_there(self, schedule, window):
        """In the order of the requests, at the very step in which the last of them ends."""

        def outs(in_order: bool) -> dict[str, int]:
            engine = replay()
            pipeline = Pipeline(engine=engine, predictor=NoisyOracle(LENGTHS, 0.5), scheduler=schedule, window=window)
            return {answer.id: engine.num_steps for answer in pipeline.stream(REQUESTS, in_order=in_order)}

        as_completed, in_order = outs(False), outs(True)
        assert list(in_order) == list(LENGTHS) != list(as_completed)
        waits_for = list(itertools.accumulate((as_completed[name] for name in LENGTHS), max))
        assert list(in_order.values()) == waits_for

    def test_what_is_finished_behind_a_gap_is_given_out_when_the_engine_breaks(self):
        """The first request has no answer, those behind it have theirs; then comes the error."""
        lengths = {"long": 400, "a": 3, "b": 5, "c": 4, "d": 7}

        class Breaking(ReplayEngine):
            def poll(self, timeout_s):
                if self.num_steps >= 9:
                    raise RuntimeError("no")
                return super().poll(timeout_s)

        engine = Breaking(lengths, ReplayConfig(Capabilities(max_running=2)))
        answers = Pipeline(engine=engine, predictor="none").stream(of(lengths), in_order=True)
        found = [next(answers).id for _ in range(3)]
        with pytest.raises(EngineError, match="RuntimeError: no"):
            next(answers)
        assert found == ["a", "b", "c"]

    def test_what_is_finished_behind_a_gap_is_given_out_when_the_run_is_drained(self):
        """The long ones behind the first began before it; it gets no answer, and they get theirs in order."""
        lengths = {"a": 3, "b": 500, "c": 400, "d": 5}

        class Draining(ReplayEngine):
            def poll(self, timeout_s):
                pipeline.drain()
                return super().poll(timeout_s)

        engine = Draining(lengths, ReplayConfig(Capabilities(max_running=2)))
        pipeline = Pipeline(engine=engine, predictor=NoisyOracle(lengths, 0.0))
        answers = pipeline.stream(of(lengths), in_order=True)
        assert [answer.id for answer in answers] == ["b", "c"]

    def test_an_id_may_come_again_when_its_first_answer_is_there(self):
        """Ids differ among requests in flight; each answer stands at its own place, however long others take."""
        lengths = {"long": 300, **{str(i): 3 + i for i in range(12)}}
        names = ["long", *(str(i % 12) for i in range(60))]
        pipeline = Pipeline(engine=replay(lengths, max_running=3), predictor="none", window=1)
        answers = pipeline.run(Request(name, "prompt") for name in names)
        assert [(answer.id, answer.completion_tokens) for answer in answers] == [(n, lengths[n]) for n in names]

    @pytest.mark.parametrize("window", [None, 1, 50])
    def test_an_id_in_flight_is_not_given_twice(self, window):
        """Nobody could tell which answer is whose. The first one's answer stands at its place."""
        pipeline = Pipeline(engine=replay({"long": 300, "x": 4}), window=window)
        answers = pipeline.stream([Request("long", "a"), Request("x", "b"), Request("long", "c")], in_order=True)
        found: list[Completion] = []
        with pytest.raises(UsageError, match="'long'"):
            found.extend(answers)
        expected = [] if window is None else ["long", "x"]  # what was taken in before is answered first
        assert [answer.id for answer in found] == expected

    @pytest.mark.parametrize("first", [Request("r1", "x"), Request("refused", "x"), {"id": "no request"}])
    def test_without_a_window_ids_differ_among_all(self, first):
        """Also from what was refused at once, long before."""
        name = first.id if isinstance(first, Request) else first["id"]
        with (
            ThreadedFeed([first, *REQUESTS[50:], Request(name, "again")], 1) as feed,
            pytest.raises(UsageError, match=f"'{name}'"),
        ):
            Pipeline(engine=replay()).run(feed)


class TestControl:
    def test_draining_finishes_what_was_begun_and_starts_nothing_new(self):
        """Also answers that were cut and wait with their tokens: they are given out whole. Counts end as they must."""
        engine = WatchedEngine(replay(kv_tokens=1_500.0))
        pipeline = Pipeline(engine=engine, predictor=NoisyOracle(LENGTHS, 0.7), scheduler="grouped")
        answers = []
        for answer in pipeline.stream(REQUESTS):
            answers.append(answer)
            if len(answers) == 20:
                begun = set(engine.started)
                num_cut_waiting = len(begun) - len(answers) - len(engine._reserved)
                pipeline.drain()
        assert num_cut_waiting > 0, "the test is about nothing"
        assert set(engine.started) == begun == {answer.id for answer in answers}
        assert answer_lengths(answers) == {name: EXPECTED[name] for name in answer_lengths(answers)}
        counts = pipeline.counts
        assert counts.num_requests == counts.num_finished == len(answers)
        assert counts.written_tokens == 0
        assert counts.expected_tokens == pytest.approx(0, abs=0.01)

    def test_draining_stops_the_reading(self):
        """A source without end is not read on."""
        pipeline = Pipeline(engine=replay({}), window=10)
        source = (Request(str(i), "prompt") for i in itertools.count())
        for answer in pipeline.stream(source):  # no length is recorded: each ends at once
            assert answer.error is not None
            pipeline.drain()
        assert next(source).id == "10"

    @pytest.mark.parametrize("order", [Pipeline.stop, Pipeline.drain])
    def test_what_is_asked_before_the_first_answer_counts(self, order):
        """A signal may come between `stream` and its first step."""
        engine = WatchedEngine(replay())
        pipeline = Pipeline(engine=engine)
        answers = pipeline.stream(REQUESTS)
        order(pipeline)
        assert list(answers) == []
        assert engine.started == []

    def test_stopping_gives_out_what_is_finished_in_order(self):
        """Held answers are not lost."""
        lengths = {"long": 400, "a": 3, "b": 5}

        class Stopping(ReplayEngine):
            def poll(self, timeout_s):
                events = super().poll(timeout_s)
                if self.num_steps >= 5:
                    pipeline.stop()
                return events

        engine = Stopping(lengths, ReplayConfig(Capabilities(max_running=3)))
        pipeline = Pipeline(engine=engine, predictor="none")
        assert [answer.id for answer in pipeline.stream(of(lengths), in_order=True)] == ["a", "b"]

    @pytest.mark.parametrize("order", [Pipeline.stop, Pipeline.drain])
    @pytest.mark.parametrize("method", [Pipeline.run, lambda pipeline, requests: asyncio.run(pipeline.arun(requests))])
    def test_a_list_of_answers_has_no_gaps(self, order, method):
        """Each answer of a stopped or drained run stands at its request's place; where there is none stands an error,
        with the request's metadata. What was not read is missing at the end."""

        class Ordering(ReplayEngine):
            def poll(self, timeout_s):
                if self.num_steps > 200:
                    order(pipeline)
                return super().poll(timeout_s)

        engine = Ordering(LENGTHS, ReplayConfig(Capabilities(max_running=8)))
        pipeline = Pipeline(engine=engine, predictor=NoisyOracle(LENGTHS, 0.0), window=20)
        answers = method(pipeline, [replace(request, metadata={"of": request.id}) for request in REQUESTS])
        assert [answer.id for answer in answers] == [answer.metadata["of"] for answer in answers]
        assert [answer.id for answer in answers] == list(LENGTHS)[: len(answers)]
        missing = {answer.id for answer in answers if answer.error and answer.error.type == "cancelled"}
        assert missing
        assert answer_lengths(answers) == {a.id: 0 if a.id in missing else EXPECTED[a.id] for a in answers}
        assert 0 < len(missing) < len(answers) < len(LENGTHS)

    @pytest.mark.parametrize("make_engine", [replay, lambda: FakeHTTPEngine(LENGTHS)], ids=["replay", "fake-http"])
    def test_a_cancelled_request_ends_as_an_error_and_no_other_does(self, make_engine):
        """Whether it runs or waits; ids that are not in the run, or that have ended, are passed over."""
        engine = WatchedEngine(make_engine())
        pipeline = Pipeline(engine=engine, predictor="none")
        answers = []
        for answer in pipeline.stream(REQUESTS):
            if not answers:
                ended = answer.id
                runs = next(name for name in engine.started if name != ended)
                for name in (runs, "r99", "never seen", ended, runs):
                    pipeline.cancel(name)
            answers.append(answer)
        cancelled = {answer.id: answer for answer in answers if answer.error}
        assert cancelled.keys() == {runs, "r99"}
        assert {answer.error.type for answer in cancelled.values()} == {"cancelled"}
        assert "r99" not in engine.started
        assert answer_lengths(answers) == EXPECTED | dict.fromkeys(cancelled, 0)
        assert pipeline.counts.written_tokens == 0

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=30),
        st.sampled_from(SCHEDULES),
        st.sampled_from([None, 1, 20]),
        st.sampled_from([1_500.0, math.inf]),
    )
    def test_whatever_is_cancelled_when_everything_ends_once(self, asked, schedule, window, kv_tokens):
        """Waiting, running, or cut and waiting again: one answer a request, whole or `cancelled`, and nothing else
        is touched."""
        pipeline = Pipeline(
            engine=WatchedEngine(replay(kv_tokens=kv_tokens)),
            predictor=NoisyOracle(LENGTHS, 0.7),
            scheduler=schedule,
            window=window,
        )
        answers = []
        for answer in pipeline.stream(REQUESTS):
            answers.append(answer)
            for after, which in asked:
                if after == len(answers):
                    pipeline.cancel(f"r{which}")
        assert sorted(answer.id for answer in answers) == sorted(LENGTHS)
        whole = answer_lengths(answer for answer in answers if not answer.error)
        assert whole == {name: EXPECTED[name] for name in whole}
        assert LENGTHS.keys() - whole.keys() <= {f"r{which}" for _, which in asked}
        assert {answer.error.type for answer in answers if answer.error} <= {"cancelled"}
        assert pipeline.counts.written_tokens == 0
        assert pipeline.counts.num_finished == pipeline.counts.num_requests == len(LENGTHS)

    def test_another_thread_may_cancel_and_drain(self):
        """While the engine works."""
        config = ReplayConfig(Capabilities(max_running=2), is_paced=True, step_fixed_s=0.01)
        engine = ReplayEngine({"a": 30_000, "b": 20, "c": 20}, replace(config, max_tokens=30_000))
        is_running = threading.Event()

        class Watched(WatchedEngine):
            def start(self, *arguments):
                super().start(*arguments)
                is_running.set()

            def poll(self, timeout_s):
                if engine._rows.keys() == {"a"}:
                    engine._config = replace(engine._config, is_paced=False)  # or 30,000 steps are slept through
                return super().poll(timeout_s)

        pipeline = Pipeline(engine=Watched(engine), predictor="none")

        def ask():
            is_running.wait(20)
            pipeline.cancel("a")
            pipeline.drain()

        thread = threading.Thread(target=ask)
        thread.start()
        answers = pipeline.run(of({"a": 0, "b": 0, "c": 0}))
        thread.join()
        ends = {answer.id: answer.error.type if answer.error else answer.finish_reason for answer in answers}
        assert ends == {"a": "cancelled", "b": "stop", "c": "cancelled"}  # c never began


class TestAsync:
    def test_in_order_and_as_they_finish(self):
        """`arun` gives what `run` gives, `astream` what `stream` gives."""

        async def collect():
            async with Pipeline(engine=replay(), window=10) as pipeline:
                in_order = await pipeline.arun(REQUESTS)
                as_completed = [answer async for answer in pipeline.astream(REQUESTS)]
            return in_order, as_completed

        in_order, as_completed = asyncio.run(collect())
        assert answer_lengths(in_order) == answer_lengths(as_completed) == EXPECTED
        assert [answer.id for answer in in_order] == list(LENGTHS)
        assert as_completed == list(Pipeline(engine=replay(), window=10).stream(REQUESTS))

    @pytest.mark.parametrize("is_async", [True, False])
    def test_leaving_the_context_while_the_engine_works_waits_for_its_step(self, is_async):
        """An engine is never closed under the thread that is in it; whoever waits for answers is told."""
        is_in_poll = threading.Event()

        class Slow(ReplayEngine):
            is_inside = False

            def poll(self, timeout_s):
                self.is_inside = True
                is_in_poll.set()
                threading.Event().wait(0.2)
                self.is_inside = False
                return super().poll(timeout_s)

            def close(self):
                assert not self.is_inside
                super().close()

        async def leave():
            pipeline = Pipeline(engine=Slow(LENGTHS))
            async with pipeline if is_async else nullcontext():
                with nullcontext() if is_async else pipeline:
                    run = asyncio.ensure_future(pipeline.arun(REQUESTS))
                    await asyncio.to_thread(is_in_poll.wait, 20)
            with pytest.raises(UsageError, match="closed before its run had ended"):
                await run

        asyncio.run(leave())

    def test_an_async_for_that_is_gone_on_with_after_its_pipeline_is_told(self):
        """Left in the middle, then taken up again."""

        async def go_on():
            async with Pipeline(engine=replay()) as pipeline:
                answers = pipeline.astream(REQUESTS)
                await anext(answers)
            with pytest.raises(UsageError, match="closed before its run had ended"):
                await anext(answers)

        asyncio.run(go_on())

    def test_the_end_of_the_event_loop_ends_a_run(self, caplog):
        """Without a complaint; the engine is left empty, and a next run gets its answers."""
        config = ReplayConfig(Capabilities(max_running=8), is_paced=True)
        engine = ReplayEngine(LENGTHS, config)
        pipeline = Pipeline(engine=WatchedEngine(engine))

        async def leave():
            task = asyncio.ensure_future(pipeline.arun(REQUESTS))
            await asyncio.sleep(0.1)
            assert not task.done()
            return task

        assert asyncio.run(leave()).cancelled()
        assert engine._rows == {}
        assert caplog.text == ""
        engine._config = replace(config, is_paced=False)
        assert answer_lengths(pipeline.run(REQUESTS)) == EXPECTED

    @pytest.mark.parametrize("num_cancels", [1, 2, 5])
    def test_a_caller_may_be_cancelled_again_while_its_run_ends(self, num_cancels):
        """It is cancelled when the thread has left the engine, and not before."""

        class Slow(ReplayEngine):
            def poll(self, timeout_s):
                is_in_poll.set()
                threading.Event().wait(0.1)
                return super().poll(timeout_s)

        is_in_poll = threading.Event()
        pipeline = Pipeline(engine=Slow(LENGTHS))

        async def leave():
            task = asyncio.ensure_future(pipeline.arun(REQUESTS))
            await asyncio.to_thread(is_in_poll.wait, 20)
            for _ in range(num_cancels):
                task.cancel()
                await asyncio.sleep(0.005)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert pipeline.engine._rows == {}
            next(pipeline.stream(REQUESTS))

        asyncio.run(leave())

    def test_a_caller_that_is_cancelled_while_it_closes_its_answers_is_cancelled(self):
        """When the engine is empty."""

        class Slow(ReplayEngine):
            def poll(self, timeout_s):
                threading.Event().wait(0.1)
                return super().poll(timeout_s)

        async def leave():
            pipeline = Pipeline(engine=Slow(LENGTHS))
            answers = pipeline.astream(REQUESTS)
            await anext(answers)
            closing = asyncio.ensure_future(answers.aclose())
            await asyncio.sleep(0.01)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            assert pipeline.engine._rows == {}

        asyncio.run(leave())

    def test_a_cancelled_caller_does_not_wait_for_the_next_answer(self):
        """The run ends at its next step, though no answer is near."""

        class Silent(ReplayEngine):
            num_polls = 0

            def poll(self, timeout_s):
                self.num_polls += 1
                assert self.num_polls < 2_000, "still running"
                threading.Event().wait(0.01)
                return super().poll(timeout_s) if self._cancelled else []

        pipeline = Pipeline(engine=Silent(LENGTHS))
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(pipeline.arun(REQUESTS), 0.2))
        assert pipeline.engine._rows == {}

    def test_leaving_ends_the_reading_of_an_asynchronous_source(self):
        """Also of one that gives no more and does not end."""
        has_ended = False

        async def source():
            nonlocal has_ended
            try:
                yield REQUESTS[0]
                await asyncio.Event().wait()
            finally:
                has_ended = True

        async def leave():
            answers = Pipeline(engine=replay(), window=1).astream(source())
            await anext(answers)
            await answers.aclose()

        asyncio.run(asyncio.wait_for(leave(), 20))
        assert has_ended

    def test_an_async_for_that_was_left_ends_when_it_is_closed(self):
        """Until then a second run is refused; it would take events of the first."""

        async def leave():
            pipeline = Pipeline(engine=WatchedEngine(replay()))
            answers = pipeline.astream(REQUESTS)
            async for _ in answers:
                break
            with pytest.raises(UsageError, match="aclose"):
                pipeline.stream(REQUESTS)
            await answers.aclose()
            return pipeline.run(REQUESTS)

        assert answer_lengths(asyncio.run(leave())) == EXPECTED


class TestPredictorsOfServedModels:
    """What a server runs can't be compared with what a predictor learned from."""

    def started(self, predictor) -> list[str]:
        engine = WatchedEngine(replay())
        engine.model = "served:http://localhost/some-model"
        Pipeline(engine=engine, predictor=predictor).run(REQUESTS)
        return engine.started

    def test_one_that_was_asked_for_is_taken_at_its_word(self, caplog):
        """And that is said."""
        predictor = NoisyOracle(LENGTHS, 0.0)
        predictor.model = "another model"
        assert is_by_length(self.started(predictor))
        assert "another model" in caplog.text
        assert "taken for granted" in caplog.text

    def test_one_that_learned_from_a_server_is_taken_at_its_word_here(self, caplog):
        """The same model may have run there."""
        predictor = NoisyOracle(LENGTHS, 0.0)
        predictor.model = "served:some-model"
        engine = WatchedEngine(replay())
        Pipeline(engine=engine, predictor=predictor).run(REQUESTS)
        assert is_by_length(engine.started)
        assert "served:some-model" in caplog.text

    def test_auto_takes_none(self, caplog):
        """It learns from the run's own answers; until then a random order, and nothing to say."""
        started = self.started("auto")
        assert sorted(started) == sorted(LENGTHS)
        assert started != list(LENGTHS)
        assert caplog.text == ""


def test_engines_with_a_queue_are_told_our_order():
    """Priorities fall from start to start: the first has the highest."""
    engine = FakeHTTPEngine(LENGTHS)
    Pipeline(engine=engine, predictor=NoisyOracle(LENGTHS, 0.0)).run(REQUESTS)
    priorities = list(engine.priorities.values())
    assert priorities == sorted(set(priorities), reverse=True)
    assert is_by_length(list(engine.priorities))


def test_an_engine_that_writes_text_only_says_what_it_can_not_honour():
    """The request ends as an error that names field and value; the others go on."""
    asked = [replace(REQUESTS[0], api_fields={"tools": [{"type": "function"}], "n": 2}), REQUESTS[1]]
    first, second = Pipeline(engine=replay()).run(asked)
    assert first.error is not None
    assert first.error.type == "unsupported_parameter"
    assert first.error.message.startswith("n is 2, which this engine can't honour")
    assert second.error is None


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 700), min_size=1, max_size=60),
    sigma=st.sampled_from([0.0, 0.5, 1.5]),
    schedule=st.sampled_from(SCHEDULES),
    max_running=st.integers(1, 40),
    kv_tokens=st.sampled_from([100.0, 1_500.0, math.inf]),
)
def test_every_request_ends_exactly_once(lengths, sigma, schedule, max_running, kv_tokens):
    """Whatever lengths, predictions, memory and rows: each answer comes once, whole, and within the engine's limits."""
    recorded = {f"r{i}": length for i, length in enumerate(lengths)}
    engine = WatchedEngine(replay(recorded, max_running=max_running, kv_tokens=kv_tokens))
    pipeline = Pipeline(engine=engine, predictor=NoisyOracle(recorded, sigma), scheduler=schedule)
    answers = list(pipeline.stream([Request(name, "prompt") for name in recorded]))
    assert len(answers) == len(recorded)
    assert answer_lengths(answers) == {name: min(length, 512) for name, length in recorded.items()}


def test_a_field_that_there_is_not_is_named_with_those_that_there_are() -> None:
    """A mapping with another program's field becomes an error that says what a request has; the others go on."""
    engine = ReplayEngine({"0": 3, "1": 3})
    answers = Pipeline(engine=engine).run([{"instruction": "Translate", "input": "Bonjour"}, "a"])
    assert answers[0].error is not None
    assert "no field 'input'" in answers[0].error.message
    assert "metadata" in answers[0].error.message
    assert answers[1].finish_reason == "stop"
