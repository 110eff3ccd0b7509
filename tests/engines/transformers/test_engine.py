"""The engine's contract: what starts ends once, where it must, and nothing else changes an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lengthwise.engines.transformers.engine import RowEngineConfig
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.testing import check_engine
from lengthwise.types import Cut, Failed, Finished, Progress, Request, SamplingParams

Make = Callable[..., Any]


def ended(engine: Any) -> list[Any]:
    """What the next poll reports, progress left out."""
    return [event for event in engine.poll(5.0) if not isinstance(event, Progress)]


def until_end(engine: Any) -> Any:
    """The next row's end."""
    while not (events := ended(engine)):
        pass
    return events[0]


def endless(tools: Any, num: int, make_engine: Make) -> list[Request]:
    """Requests whose greedy answers have at least 30 tokens."""
    requests = [replace(request, max_tokens=30) for request in tools.make_requests(40, seed=3)]
    answers = tools.Driver(make_engine(), at_once=40).run(requests)
    return [replace(r, max_tokens=40) for r in requests if answers[r.id].finish_reason == "length"][:num]


def test_it_passes_the_conformance_checks(make_engine: Make, tools: Any) -> None:
    """Greedy, and sampled with everything on: cut every 7 tokens or whole, the answer is the same."""
    check_engine(make_engine(), tools.make_requests(6, max_tokens=30))
    sampled = tools.make_requests(
        6,
        max_tokens=20,
        temperature=0.9,
        top_p=0.9,
        top_k=40,
        repetition_penalty=1.3,
        presence_penalty=0.5,
        frequency_penalty=0.5,
    )
    check_engine(make_engine(), sampled)


def test_a_sampled_answer_depends_on_its_seed_only(make_engine: Make, tools: Any) -> None:
    """One at a time, five, or all at once, in pieces, beside greedy neighbours or not: the same answers; another
    seed gives another answer."""
    drawn = tools.make_requests(8, max_tokens=25, temperature=1.0)
    greedy = [replace(request, id="g" + request.id) for request in tools.make_requests(5, seed=9)]
    expected = tools.Driver(make_engine(), at_once=1).run(drawn)
    for requests, options in (
        (drawn, {"at_once": 5}),
        (drawn[::-1], {"at_once": 10, "piece": lambda request: 4}),
        (greedy + drawn, {"at_once": 15}),
    ):
        answers = tools.Driver(make_engine(), **options).run(requests)
        assert {r.id: answers[r.id].text for r in drawn} == {r.id: expected[r.id].text for r in drawn}
    others = tools.Driver(make_engine()).run([request.with_seed(99) for request in drawn])
    assert sum(others[r.id].text != expected[r.id].text for r in drawn) >= 6


def test_penalties_do_not_touch_neighbours(make_engine: Make, tools: Any) -> None:
    """A greedy row beside rows with penalties has the answer that it has alone."""
    plain = tools.make_requests(6, seed=5)
    penalised = [replace(r, id="p" + r.id) for r in tools.make_requests(6, seed=6, frequency_penalty=1.5)]
    expected = tools.Driver(make_engine(), at_once=1).run(plain)
    mixed = [request for pair in zip(plain, penalised, strict=True) for request in pair]
    answers = tools.Driver(make_engine(), at_once=8).run(mixed)
    assert {r.id: answers[r.id] for r in plain} == expected


def test_a_cap_cuts_and_the_own_limit_finishes(make_engine: Make, tools: Any) -> None:
    """At the cap a row comes back with all its tokens; at the request's own limit it is finished (`length`), also
    where the two are the same."""
    request = endless(tools, 1, make_engine)[0]
    engine = make_engine()
    engine.start(request, [], 10, None)
    cut = until_end(engine)
    assert isinstance(cut, Cut)
    assert (cut.id, cut.reason, len(cut.tokens)) == (request.id, "cap", 10)
    engine.start(replace(request, max_tokens=20), cut.tokens, 20, None)
    finished = until_end(engine)
    assert isinstance(finished, Finished)
    assert (finished.finish_reason, finished.completion_tokens) == ("length", 20)
    assert finished.text.split()[:10] == [str(token) for token in cut.tokens]


def test_tokens_that_already_fill_the_limit_end_at_once(make_engine: Make, tools: Any) -> None:
    """Continuing an answer that is already as long as its cap or its limit writes nothing more."""
    request = tools.make_requests(1)[0]
    engine = make_engine()
    engine.start(replace(request, max_tokens=3), [5, 6, 7], 3, None)
    assert ended(engine) == [Finished(request.id, "5 6 7", "length", 3, (5, 6, 7))]
    engine.start(replace(request, max_tokens=9), [5, 6, 7], 3, None)
    assert ended(engine) == [Cut(request.id, (5, 6, 7), "cap")]


def test_cancel_gives_the_tokens_back(make_engine: Make, tools: Any) -> None:
    """A cancelled row is cut, whether it has run or not; its neighbours go on; unknown ids are passed over."""
    first, second = endless(tools, 2, make_engine)
    engine = make_engine(progress_interval_s=0.0)
    engine.start(first, [], 100, None)
    engine.poll(0.0)
    engine.start(second, [7], 100, None)
    engine.cancel(first.id)
    engine.cancel(second.id)
    engine.cancel("nobody")
    first_cut, second_cut = ended(engine)
    assert (first_cut.reason, len(first_cut.tokens)) == ("cancelled", 1)
    assert second_cut == Cut(second.id, (7,), "cancelled")
    assert ended(engine) == []


def test_progress_counts_the_whole_answer(make_engine: Make, tools: Any) -> None:
    """Progress grows, counts tokens before a cut, and comes at most once an interval."""
    request = endless(tools, 1, make_engine)[0]
    engine = make_engine(progress_interval_s=0.0)
    engine.start(request, [], 2, None)
    assert engine.poll(0.0) == [Progress(request.id, 1)]
    engine.start(request, until_end(engine).tokens, 100, None)
    assert engine.poll(0.0) == [Progress(request.id, 3)]
    assert engine.poll(0.0) == [Progress(request.id, 4)]
    rare = make_engine(progress_interval_s=60.0)
    rare.start(request, [], 100, None)
    assert len(rare.poll(0.0)) == 1
    assert rare.poll(0.0) == []


def test_poll_without_work_returns_at_once(make_engine: Make) -> None:
    """Nothing runs, nothing is reported, no time is spent."""
    assert make_engine().poll(60.0) == []


def test_a_request_that_cannot_run_fails_and_stops_nobody(make_engine: Make, tools: Any) -> None:
    """A limit beyond the context is that request's failure."""
    good = tools.make_requests(1)[0]
    engine = make_engine()
    engine.start(replace(good, id="bad", max_tokens=10_000), [], 10_000, None)
    engine.start(good, [], 100, None)
    events = [until_end(engine), until_end(engine)]
    assert isinstance(events[0], Failed)
    assert events[0].error.type == "context_length_exceeded"
    assert isinstance(events[1], Finished)


def test_rows_may_enter_at_any_time(make_engine: Make, tools: Any) -> None:
    """A request started between any two polls has the answer that it has alone."""
    requests = tools.make_requests(8, seed=11, max_tokens=30)
    expected = tools.Driver(make_engine(), at_once=1).run(requests)
    engine = make_engine(patience_row_steps=3)
    answers: dict[str, Any] = {}
    queue = list(requests)
    while len(answers) < len(requests):
        if queue:
            engine.start(queue.pop(), [], 10**6, None)
        answers.update({event.id: event for event in engine.poll(0.0) if isinstance(event, Finished)})
    assert answers == expected


def test_stop_strings_end_an_answer_before_them(tiny_llama_dir: Any, make_engine: Make, tools: Any) -> None:
    """For stop strings taken from the middle of answers: the text ends before the first of them, the tokens up to
    there are counted, and cutting every 7 tokens changes nothing."""
    loaded = _with_text(tiny_llama_dir)
    requests = [replace(request, max_tokens=40) for request in tools.make_requests(10, seed=2)]
    whole = tools.Driver(make_engine(loaded=loaded), at_once=10).run(requests)
    stopping = [
        replace(request, sampling=SamplingParams(stop=(text[len(text) // 2 :][:2], "never there")))
        for request in requests
        if len(text := whole[request.id].text) > 8
    ]
    assert len(stopping) > 5
    answers = tools.Driver(make_engine(loaded=loaded), at_once=10).run(stopping)
    for request in stopping:
        text, stop = whole[request.id].text, request.sampling.stop[0]
        if "\ufffd" not in stop:
            assert answers[request.id].text == text[: text.index(stop)]
            assert answers[request.id].finish_reason == "stop"
            assert answers[request.id].completion_tokens <= whole[request.id].completion_tokens
    assert tools.Driver(make_engine(loaded=loaded), at_once=10, piece=lambda request: 7).run(stopping) == answers


def _with_text(folder: Any) -> LoadedModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return LoadedModel(model, tokenizer, "text", 256, (1,), lambda r: [int(word) for word in str(r.prompt).split()])


def test_special_tokens_are_no_text(tiny_llama_dir: Any, make_engine: Make, tools: Any) -> None:
    """The end-of-sequence token is counted and not printed."""
    loaded = replace(_with_text(tiny_llama_dir), eos_token_ids=(1, *range(150, 384)))
    answers = tools.Driver(make_engine(loaded=loaded)).run(tools.make_requests(20))
    assert any(answer.finish_reason == "stop" for answer in answers.values())
    assert not any("</s>" in answer.text for answer in answers.values())


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_running", 0), ("kv_tokens", float("nan")), ("max_read_tokens", 0), ("progress_interval_s", -1.0)],
)
def test_a_configuration_that_cannot_work_is_refused(field: str, value: float) -> None:
    """The message names field and value."""
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        RowEngineConfig(**{field: value})


@pytest.mark.parametrize(("num_words", "num_steps"), [(5, 1), (30, 6)])
def test_short_prompts_ride_along_and_long_ones_wait_for_company(
    num_words: int, num_steps: int, make_engine: Make, loaded_ids: Callable[..., LoadedModel], tools: Any
) -> None:
    """Beside a row that runs: up to 10 tokens enter with the next step, in no pass of their own; more wait 6 steps."""
    first, second = (replace(request, max_tokens=60) for request in tools.make_requests(2))
    loaded = replace(loaded_ids(), eos_token_ids=())
    engine = make_engine(loaded=loaded, max_riding_tokens=10, patience_row_steps=6)
    engine.start(first, [], 10**6, None)
    engine.poll(0.0)
    shapes: list[tuple[int, ...]] = []
    handle = loaded.for_passes.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    engine.start(replace(second, prompt="7 " * num_words), [], 10**6, None)
    while len(engine._running) < 2:
        engine.poll(0.0)
    handle.remove()
    if num_words == 5:
        assert shapes == [(2 + num_words - 1, 1)]
    else:
        assert shapes == [(1, 1)] * num_steps + [(1, num_words - 1), (2, 1)]
