"""Every way to answer gives the same answers, in natural and in recorded lengths, on a real (tiny, random) model."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import pytest

from lengthwise.benchmarks.baseline import generate_in_batches, writing_on
from lengthwise.benchmarks.throughput.contenders import choose, contenders
from lengthwise.benchmarks.throughput.continuous import ContinuousBatching
from lengthwise.benchmarks.throughput.engines import RecordedPrompts, Watch, WatchedRows
from lengthwise.benchmarks.throughput.scheduled import Scheduled, TrueLengths
from lengthwise.benchmarks.throughput.vllm_cpu import PYTHON_VARIABLE, VllmCpu
from lengthwise.benchmarks.throughput.workload import Setup, Workload
from lengthwise.engines.transformers import ModelOptions
from lengthwise.engines.transformers.loading import load_model
from lengthwise.errors import EngineError, UsageError
from lengthwise.pipeline import Pipeline
from lengthwise.testing import NoisyOracle
from lengthwise.types import Cut, Prepared, Request

MAX_TOKENS = 60  # above the paper's bin of 50, so that its caps cut
REQUESTS = tuple(Request(f"r{i}", f"write {'word ' * (i % 7)}number {i}") for i in range(12))
LENGTHS = {request.id: (1, 60, 2, 55, 17, 33, 5)[i % 7] for i, request in enumerate(REQUESTS)}
NAMES = [
    *("arrival16", "pipeline16", "no_end16", "continuous", "continuous_tuned"),
    *("reference", "paper", "ours_arrival", "worst_case", "slots16", "default", "oracle"),
]


@pytest.fixture(scope="module")
def loaded(tiny_llama_dir):
    return load_model(ModelOptions(str(tiny_llama_dir)))


@pytest.fixture(scope="module")
def alone(loaded):
    return generate_in_batches(loaded, REQUESTS, 1, MAX_TOKENS)


@pytest.fixture(scope="module")
def setups(loaded, tiny_llama_dir):
    """The budget of four requests at their worst, so that memory is short for all."""
    longest = max(len(loaded.encode_prompt(request)) for request in REQUESTS)
    natural = Setup(
        loaded, str(tiny_llama_dir), Workload(REQUESTS, MAX_TOKENS), longest, 4 * (longest + MAX_TOKENS), max_rows=8
    )
    return {"natural": natural, "recorded": replace(natural, workload=Workload(REQUESTS, MAX_TOKENS, LENGTHS))}


@pytest.fixture(scope="module")
def wanted(alone):
    return {"natural": {name: len(tokens) for name, tokens in alone.tokens.items()}, "recorded": LENGTHS}


@pytest.fixture(scope="module")
def samples(setups, wanted):
    """One run of each contender in both modes; the predictor is wrong on purpose."""
    os.environ.pop(PYTHON_VARIABLE, None)
    found = {}
    for mode, setup in setups.items():
        guess = NoisyOracle({name: max(1, length // 2) for name, length in wanted[mode].items()}, 0.3)
        known = contenders(setup, {"auto": lambda requests, guess=guess: guess})
        for name, contender in known.items():
            found[mode, name] = contender.run(REQUESTS)
    return found


def test_the_contenders_are_those_that_are_promised(samples):
    """Without vLLM's environment all others are there, under their names."""
    assert [name for mode, name in samples if mode == "natural"] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_natural_answers_are_those_of_each_request_alone(samples, alone, wanted, name):
    """Every contender answers every request once, as long and with the same text as it is alone."""
    sample = samples["natural", name]
    assert sample.lengths == wanted["natural"]
    assert sample.texts == alone.texts
    assert sample.num_errors == 0


@pytest.mark.parametrize("name", NAMES)
def test_recorded_lengths_are_kept_to_the_token(samples, name):
    """No answer ends earlier or later than recorded, whatever the model writes."""
    sample = samples["recorded", name]
    assert sample.lengths == LENGTHS
    assert sample.num_requests == len(REQUESTS)
    assert sample.useful_tokens == sum(LENGTHS.values())


def test_recorded_answers_have_the_same_texts(samples):
    """What is written behind an end-of-sequence token is the same everywhere, too."""
    first = samples["recorded", "arrival16"].texts
    assert {name for name in NAMES if samples["recorded", name].texts != first} == set()


@pytest.mark.parametrize("mode", ["natural", "recorded"])
def test_computed_positions_are_counted_by_what_runs(samples, mode, wanted):
    """Static batches compute on behind an end, and without end detection up to the limit; rows of our own stop."""
    lengths = wanted[mode]
    batches = [REQUESTS[first : first + 4] for first in range(0, len(REQUESTS), 4)]  # of which the budget holds four
    padded = sum(len(batch) * max(lengths[request.id] for request in batch) for batch in batches)
    assert samples[mode, "arrival16"].computed_positions == padded
    assert samples[mode, "pipeline16"].computed_positions == padded
    assert samples[mode, "no_end16"].computed_positions == len(REQUESTS) * MAX_TOKENS
    for name in ("paper", "ours_arrival", "worst_case", "slots16", "default", "oracle"):
        sample = samples[mode, name]
        assert sample.computed_positions == sample.useful_tokens + sample.recomputed_tokens, name
    assert samples[mode, "reference"].useful_share < 1


@pytest.mark.parametrize("mode", ["natural", "recorded"])
def test_rows_that_are_put_back_are_counted(samples, mode):
    """Guesses of half the length cut the paper's rows where length decides, and it writes them again; the default
    throws nothing away."""
    assert samples[mode, "paper"].num_put_back > 0
    assert samples[mode, "paper"].recomputed_tokens > 0
    assert samples[mode, "default"].recomputed_tokens == 0
    for name in ("ours_arrival", "worst_case", "oracle"):
        assert samples[mode, name].num_put_back == 0, name


def test_what_the_engine_puts_back_is_counted():
    """For want of memory or at a cap; what was cancelled is not."""
    watch = Watch(60)
    for name in ("memory", "cap", "cancelled"):
        watch.start(name, 0)
        watch.seen([Cut(name, (1, 2), name)])
    assert watch.num_put_back == 2


@pytest.mark.parametrize("name", NAMES)
def test_slots_and_idle_time_are_told(samples, name):
    """Who runs within the memory of four requests never holds more at once than fit; a share is a share."""
    sample = samples["recorded", name]
    assert 1 <= sample.num_slots <= len(REQUESTS)
    assert 0 <= sample.idle_share < 1
    assert min(start for start, _ in sample.spans) >= 0
    assert max(end for _, end in sample.spans) <= sample.wall_s
    if name in ("arrival16", "pipeline16", "no_end16", "worst_case", "ours_arrival"):
        assert sample.num_slots <= 8


def test_batches_without_end_detection_idle_most(samples):
    """Slots whose answers have ended stand idle till the limit."""
    assert samples["recorded", "no_end16"].idle_share > samples["recorded", "arrival16"].idle_share
    assert samples["recorded", "no_end16"].idle_share == pytest.approx(
        1 - sum(LENGTHS.values()) / (len(REQUESTS) * MAX_TOKENS), abs=0.15
    )


def test_whoever_schedules_is_not_told_recorded_lengths(setups, loaded):
    """The limit that a scheduler sees is the common one."""
    prompts = RecordedPrompts(loaded, setups["recorded"].workload)
    prepared = prompts.prepare(REQUESTS)
    assert all(isinstance(one, Prepared) and one.max_tokens == MAX_TOKENS for one in prepared)
    assert [prompts.max_tokens(request, 5) for request in REQUESTS] == list(LENGTHS.values())


def test_recorded_ends_look_like_ends_to_who_learns(setups):
    """An answer of recorded length ended by itself, unless it filled the limit."""
    with writing_on(setups["recorded"].loaded):
        answers = Pipeline(engine=WatchedRows(setups["recorded"], 8), predictor="none").run(REQUESTS)
    assert {answer.finish_reason for answer in answers if answer.completion_tokens < MAX_TOKENS} == {"stop"}
    assert {answer.finish_reason for answer in answers if answer.completion_tokens == MAX_TOKENS} == {"length"}


def test_the_oracle_knows_all_lengths_however_few_came_first(setups, wanted):
    """Rounds begin with a few requests, uncounted; what is known then is not all."""
    oracle = TrueLengths(setups["natural"])
    oracle(REQUESTS[:4])
    found = oracle(REQUESTS).predict(REQUESTS).median
    assert found.tolist() == [wanted["natural"][request.id] for request in REQUESTS]


def test_predictors_are_made_anew_for_each_run(setups):
    """One that learns in a run would know the next one's answers."""
    made = []

    def make(requests):
        made.append(NoisyOracle(LENGTHS, 0.1))
        return made[-1]

    contender = Scheduled("default", "", setups["natural"], make)
    contender.run(REQUESTS[:2])
    contender.run(REQUESTS[:2])
    assert len(made) == 2


def test_a_tuned_peer_says_what_it_tried(setups):
    """The fastest of the settings is taken, and its rates stand in the line."""
    tried = [{"page_size": 32, "max_batch_tokens": tokens} for tokens in (16, 64)]
    contender = ContinuousBatching("c", "", setups["recorded"], tried)
    contender.warm_up(REQUESTS[:2])
    said = contender.settings
    rates = said["requests_per_s_when_tried"]
    assert len(rates) == 2
    assert str({"page_size": 32, "max_batch_tokens": said["max_batch_tokens"]}) == max(rates, key=rates.get)
    assert said["num_blocks"] * 32 <= setups["recorded"].kv_tokens


def test_unknown_contenders_are_refused_by_name(setups):
    """The message has the wrong name and the right ones; for vLLM the way to it."""
    known = contenders(setups["natural"], {"auto": lambda requests: None})
    with pytest.raises(UsageError, match="'best'; choose from arrival16, pipeline16"):
        choose(known, ["default", "best"])
    with pytest.raises(UsageError, match=PYTHON_VARIABLE):
        choose(known, ["vllm_cpu"])
    assert [one.name for one in choose(known, ["oracle", "default", "oracle"])] == ["oracle", "default"]


# -- vLLM's process, with a module in vLLM's place ------------------------------------------------------------------

VLLM = """
import os
from types import SimpleNamespace as Named

__version__ = "0.0"

class SamplingParams:
    def __init__(self, **fields):
        vars(self).update(fields)

class LLM:
    def __init__(self, **arguments):
        print("noise on standard output")
        if arguments["model"] == "broken":
            raise SystemExit("no such model")

    def generate(self, prompts, sampling, use_tqdm):
        import time
        now = time.monotonic()
        metrics = Named(scheduled_ts=now, last_token_ts=now + 0.01, num_preemptions=1)
        return [
            Named(outputs=[Named(token_ids=[0] * one.max_tokens, text=os.environ["OMP_NUM_THREADS"])], metrics=metrics)
            for one in sampling
        ]
"""


@pytest.fixture
def fake_vllm(tmp_path, monkeypatch):
    (tmp_path / "vllm.py").write_text(VLLM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return sys.executable


def test_vllm_answers_in_a_process_of_its_own(setups, fake_vllm):
    """Lengths, texts, spans and what was put back come over lines of JSON; the fastest number of threads stays."""
    contender = VllmCpu("vllm_cpu", "", setups["recorded"], fake_vllm, threads=(1, 2))
    try:
        contender.warm_up(REQUESTS[:3])
        sample = contender.run(REQUESTS)
    finally:
        contender.close()
    said = contender.settings
    assert sample.lengths == LENGTHS
    assert sample.num_put_back == len(REQUESTS)
    assert sample.peak_bytes > 0
    rates = said["requests_per_s_by_threads"]
    assert set(sample.texts.values()) == {str(max(rates, key=rates.get))}
    assert (said["version"], said["max_num_seqs"]) == ("0.0", 8)
    assert setups["recorded"].model_path not in str(said)  # a folder of this machine, in a line that is passed on


def test_a_vllm_that_ends_says_why(setups, fake_vllm):
    """Its last words are the error's."""
    contender = VllmCpu("vllm_cpu", "", replace(setups["recorded"], model_path="broken"), fake_vllm, threads=(1,))
    with pytest.raises(EngineError, match="no such model"):
        contender.warm_up(REQUESTS[:3])
    contender.close()
