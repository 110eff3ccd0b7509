import copy
from dataclasses import replace

import pytest
import torch

from lengthwise.engines.transformers import ModelOptions
from lengthwise.engines.transformers.engine import RowEngineConfig, TransformersEngine
from lengthwise.engines.transformers.generate_engine import GenerateEngine, takes_padding
from lengthwise.engines.transformers.loading import load_model
from lengthwise.engines.transformers.prompts import Prompts
from lengthwise.pipeline import make_scheduler
from lengthwise.scheduling.grouping import GroupedScheduler
from lengthwise.testing import check_engine
from lengthwise.types import Cut, Failed, Finished, Request, SamplingParams

TEXTS = [
    "A list of fruits",
    "Why?",
    "Write a letter to a friend about the weather and the sea",
    "Yes",
    "Explain a wheel",
]


def load(folder):
    return load_model(ModelOptions(model=str(folder)))


@pytest.fixture
def llama(tiny_llama_dir):
    return load(tiny_llama_dir)


def engine_of(loaded, max_running=8, max_tokens=40, **options):
    return GenerateEngine(loaded, Prompts(loaded, max_tokens), max_running, **options)


def requests(**sampling):
    return [Request(f"r{i}", text, SamplingParams(**sampling)) for i, text in enumerate(TEXTS)]


def answers(engine, wanted, cap=40, tokens=()):
    for request in wanted:
        engine.start(request, tokens, cap, None)
    found = {}
    while len(found) < len(wanted):
        events = [event for event in engine.poll(60.0) if isinstance(event, (Finished, Failed, Cut))]
        assert events
        found |= {event.id: event for event in events}
    return found


def alone(loaded, request, max_tokens=40):
    """New tokens of `model.generate`, this request alone."""
    ids = torch.tensor([loaded.encode_prompt(request)])
    out = loaded.model.generate(
        ids, do_sample=False, max_new_tokens=max_tokens, eos_token_id=list(loaded.eos_token_ids), pad_token_id=2
    )
    return tuple(out[0, ids.shape[1] :].tolist())


@pytest.mark.parametrize("family", ["llama", "mamba", "gpt2"])
def test_it_is_an_engine(model_dir, family):
    """Ends, counts, limits, cuts that are continued, cancelling: the checks that every engine passes."""
    engine = engine_of(load(model_dir(family)), max_running=3)
    check_engine(engine, [*requests(), Request("sampled", "Why?", SamplingParams(temperature=1.0, seed=7))])


@pytest.mark.parametrize("family", ["llama", "mamba", "gpt2", "mistral"])
def test_greedy_answers_are_those_of_generate_one_at_a_time(model_dir, family):
    """Padding and neighbours change nothing."""
    loaded = load(model_dir(family))
    found = answers(engine_of(loaded), requests())
    for request in requests():
        answer = found[request.id]
        assert answer.tokens == alone(loaded, request)
        assert answer.completion_tokens == len(answer.tokens)
        is_stopped = answer.tokens[-1] in loaded.eos_token_ids
        assert answer.finish_reason == ("stop" if is_stopped else "length")


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.8, "seed": 3},
        {"temperature": 1.2, "top_p": 0.8, "top_k": 20, "seed": 4},
        {"repetition_penalty": 1.3},
        {"temperature": 0.7, "presence_penalty": 1.0, "frequency_penalty": 0.5, "seed": 5},
        {"stop": ("e", "a")},
    ],
)
def test_answers_are_those_of_our_own_loop(llama, sampling):
    """Whatever a request asks for: the same text, reason and count from either engine."""
    own = TransformersEngine(llama, Prompts(llama, 40), RowEngineConfig())
    ours, by_generate = (answers(engine, requests(**sampling)) for engine in (own, engine_of(llama)))
    for name, answer in ours.items():
        other = by_generate[name]
        assert (other.text, other.finish_reason) == (answer.text, answer.finish_reason)
        assert other.completion_tokens == answer.completion_tokens


def test_rows_of_one_batch_keep_their_own_sampling(llama):
    """Greedy, sampled and penalised side by side, each as if alone."""
    mixed = [
        Request("greedy", "Why?"),
        Request("sampled", "Why?", SamplingParams(temperature=1.0, seed=1)),
        Request("penalised", "Why?", SamplingParams(repetition_penalty=2.0)),
        Request("short", "Why?", max_tokens=3),
    ]
    together = answers(engine_of(llama), mixed, cap=40)
    assert len({answer.tokens for answer in together.values()}) == 4
    for request in mixed:
        assert answers(engine_of(llama), [request])[request.id] == together[request.id]


def test_a_cap_cuts_a_row_and_leaves_the_others(llama):
    """The batch goes on for them; the cut row has just its cap."""
    first, second = requests()[0], requests()[2]
    engine = engine_of(llama)
    engine.start(first, (), 5, None)
    engine.start(second, (), 40, None)
    cut, finished = engine.poll(1.0)
    assert cut == Cut(first.id, alone(llama, first)[:5])
    assert finished.tokens == alone(llama, second)


def test_the_model_s_own_sampling_defaults_are_not_added(make_model_dir, llama):
    """A request says all that it wants; a penalty in generation_config.json is not part of it."""
    import json

    folder = make_model_dir("llama")
    defaults = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**defaults, "repetition_penalty": 3.0}))
    found = answers(engine_of(load(folder)), requests())
    assert {name: answer.tokens for name, answer in found.items()} == {r.id: alone(llama, r) for r in requests()}


def test_rows_that_do_not_fit_into_the_context_together_come_one_after_the_other(make_model_dir):
    """A long prompt beside a long answer would take GPT-2 to positions that it does not have."""
    loaded = load(make_model_dir("gpt2", eos_token_id=1))
    long_prompt = Request("long prompt", "Why? " * 60, max_tokens=20)
    long_answer = Request("long answer", "Why?", max_tokens=200)
    found = answers(engine_of(loaded), [long_prompt, long_answer], cap=200)
    assert found["long prompt"].tokens == alone(loaded, long_prompt, 20)
    assert found["long answer"].tokens == alone(loaded, long_answer, 200)
    assert found["long prompt"].completion_tokens == 20  # neither stops by itself: they would have met
    assert found["long answer"].completion_tokens == 200


def test_a_model_that_reads_its_padding_gets_none(llama, monkeypatch):
    """Found out by trying; then only prompts of one length share a batch."""
    forward = llama.model.forward
    monkeypatch.setattr(llama.model, "forward", lambda *args, attention_mask=None, **rest: forward(*args, **rest))
    assert not takes_padding(llama)
    engine = engine_of(llama)
    assert not engine.can_pad
    found = answers(engine, requests())
    assert {name: answer.tokens for name, answer in found.items()} == {r.id: alone(llama, r) for r in requests()}


def test_padding_is_taken_where_it_makes_no_difference(model_dir):
    """Attention masks it, and Mamba's state stays empty."""
    assert all(takes_padding(load(model_dir(family))) for family in ("llama", "gpt2", "mamba"))


class SmallMemory:
    """A model's `generate` on a device that has memory for `max_rows` rows with prompts of `max_width` tokens. `sizes`
    are the batches' rows, `tokens` what their keys and values take at their end, padding included."""

    def __init__(self, model, max_rows, max_width=10_000):
        self._generate = model.generate
        self._max_rows = max_rows
        self._max_width = max_width
        self.sizes = []
        self.tokens = []

    def __call__(self, **inputs):
        num_rows, width = inputs["input_ids"].shape
        self.sizes.append(num_rows)
        self.tokens.append(num_rows * (width + inputs["generation_config"].max_new_tokens))
        if num_rows > self._max_rows or width > self._max_width:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self._generate(**inputs)


def test_its_default_schedule_is_sorted_batches(llama):
    """A request can't join others that run, so it is not refilled; caps end batches early instead."""
    scheduler = make_scheduler("default", engine_of(llama))
    assert isinstance(scheduler, GroupedScheduler)
    assert scheduler.config.fcr


def test_out_of_memory_halves_the_batch_and_loses_nothing(llama, monkeypatch):
    """The same answers, and the capabilities say what is left."""
    engine = engine_of(llama)
    memory = SmallMemory(llama.model, 2)
    monkeypatch.setattr(llama.model, "generate", memory)
    found = answers(engine, requests())
    monkeypatch.undo()
    assert memory.sizes == [5, 2, 2, 1]
    assert engine.capabilities.max_running == 2
    assert {name: answer.tokens for name, answer in found.items()} == {r.id: alone(llama, r) for r in requests()}


def test_a_row_that_does_not_fit_alone_fails(llama, monkeypatch):
    """One error row, and the run goes on."""
    engine = engine_of(llama, max_running=1)
    monkeypatch.setattr(llama.model, "generate", SmallMemory(llama.model, 0))
    found = answers(engine, requests())
    assert {answer.error.type for answer in found.values()} == {"out_of_memory"}


def test_rows_are_taken_again_when_one_was_to_blame(llama, monkeypatch):
    """A row that fails alone says nothing about how many others fit."""
    widths = {request.id: len(llama.encode_prompt(request)) for request in requests()}
    longest = max(widths, key=widths.get)
    engine = engine_of(llama)
    monkeypatch.setattr(llama.model, "generate", SmallMemory(llama.model, 8, max_width=widths[longest] - 1))
    found = answers(engine, requests())
    assert [name for name, answer in found.items() if isinstance(answer, Failed)] == [longest]
    assert engine.capabilities.max_running == 8


@pytest.mark.parametrize("kv_tokens", [1, 150, 250])
def test_padding_counts_towards_the_tokens_in_the_cache(llama, monkeypatch, kv_tokens):
    """A batch stays within them with all its padding, or is one row."""
    engine = engine_of(llama, kv_tokens=kv_tokens)
    memory = SmallMemory(llama.model, 8)
    monkeypatch.setattr(llama.model, "generate", memory)
    found = answers(engine, requests())
    monkeypatch.undo()
    assert {name: answer.tokens for name, answer in found.items()} == {r.id: alone(llama, r) for r in requests()}
    assert all(rows == 1 or tokens <= kv_tokens for rows, tokens in zip(memory.sizes, memory.tokens, strict=True))
    assert (max(memory.sizes) > 1) == (kv_tokens > 1)


def test_a_row_without_numbers_fails_alone(loaded_ids, tools):
    """A token whose embedding is NaN, in one prompt of a greedy batch: its neighbours answer as ever."""
    loaded = loaded_ids()
    good = tools.make_requests(6, seed=4, max_tokens=20)
    expected = tools.Driver(engine_of(loaded)).run(good)
    poison = min(
        {str(i) for i in range(384)}.difference(*(r.prompt.split() + expected[r.id].text.split() for r in good))
    )
    model = copy.deepcopy(loaded.model)
    with torch.no_grad():
        model.get_input_embeddings().weight[int(poison)] = float("nan")
    engine = engine_of(replace(loaded, model=model))
    assert engine.can_pad
    bad = Request("bad", f"5 {poison} 6", max_tokens=20)
    found = tools.Driver(engine, at_once=8).run([*good[:3], bad, *good[3:]])
    assert found.pop("bad").error.type == "nan_logits"
    assert found == expected


def test_another_error_is_not_taken_for_want_of_memory(llama, monkeypatch):
    """It reaches the caller."""

    def broken(**inputs):
        raise RuntimeError("shapes differ")

    engine = engine_of(llama)
    monkeypatch.setattr(llama.model, "generate", broken)
    engine.start(requests()[0], (), 10, None)
    with pytest.raises(RuntimeError, match="shapes differ"):
        engine.poll(1.0)


def test_a_bad_request_fails_alone(llama):
    """Started without `prepare`, it is an error row all the same."""
    found = answers(engine_of(llama), [Request("bad", "x", max_tokens=10_000), *requests()])
    assert found["bad"].error.type == "context_length_exceeded"
    assert sum(isinstance(answer, Finished) for answer in found.values()) == 5


def test_a_batch_ends_when_all_its_rows_have(llama):
    """By end of sequence, by their own limits, by stop texts: nothing is computed behind the last of them."""
    whole = answers(engine_of(llama), [Request("r", "Why?", max_tokens=200)], cap=200)["r"]
    assert whole.finish_reason == "stop"
    short = Request("short", "A list of fruits", max_tokens=3)
    stopped = Request("stopped", "Why?", SamplingParams(stop=(whole.text[2:6],)), max_tokens=200)
    for batch in ([Request("r", "Why?", max_tokens=200), short], [stopped], [stopped, short]):
        engine = engine_of(llama)
        found = answers(engine, batch, cap=200)
        assert engine.num_row_steps == len(batch) * max(answer.completion_tokens for answer in found.values())


def test_positions_are_counted_for_every_row_and_step(llama):
    """What static batches waste shows here."""
    engine = engine_of(llama)
    found = answers(engine, requests())
    assert engine.num_row_steps == 5 * max(answer.completion_tokens for answer in found.values())
