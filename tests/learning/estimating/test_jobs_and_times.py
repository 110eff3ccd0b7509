"""A whole job before it runs: what is known of it, and the seconds that it takes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lengthwise.costs import StepCost
from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.errors import UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.learning.estimating.jobs import NUM_DRAWN, NUM_LARGEST, JobOutlook
from lengthwise.learning.estimating.prices import Price, read_price
from lengthwise.learning.estimating.timing import StepTimes, seconds_by_rate, seconds_by_steps
from lengthwise.learning.estimating.totals import Interval
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.oracle import OraclePredictor
from lengthwise.testing import NoisyOracle
from lengthwise.types import Capabilities, ErrorInfo, Prepared, Request

LENGTHS = {f"r{i}": 1 + i * 37 % 400 for i in range(500)}
REQUESTS = [Request(name, "x" * 40, max_tokens=300) for name in LENGTHS]


class Half:
    """Knows the lengths of those whose number is even."""

    model: str | None = None

    def predict(self, requests: list[Request]) -> LengthEstimates:
        return LengthEstimates.certain([LENGTHS[one.id] if int(one.id[1:]) % 2 == 0 else np.nan for one in requests])

    def observe(self, requests: object, completions: object) -> None:
        """Learns nothing."""


def prepared(num: int, prompt_tokens: int = 10, max_tokens: int = 300) -> list[Prepared | ErrorInfo]:
    return [Prepared(prompt_tokens, max_tokens)] * num


def test_what_is_known_of_a_job() -> None:
    """Prompts' tokens, answers within their limits, the longest rows first, whatever the chunks."""
    outlook = JobOutlook(NoisyOracle(LENGTHS, 0.0))
    for start in range(0, 500, 130):
        chunk = REQUESTS[start : start + 130]
        outlook.add(chunk, prepared(len(chunk)))
    assert (outlook.num_prompts, outlook.num_answers, outlook.prompt_tokens) == (500, 500, 5_000)
    assert outlook.totals.tokens == pytest.approx(sum(min(300, n) for n in LENGTHS.values()), rel=1e-3)
    assert len(outlook.largest) == NUM_LARGEST
    longest = [name for name in LENGTHS if LENGTHS[name] >= 300][:NUM_LARGEST]
    assert [one.id for one in outlook.largest] == longest
    assert {one.p99 for one in outlook.largest} == {300}


def test_what_can_t_be_answered_costs_nothing() -> None:
    """Refused requests are counted, and nothing else."""
    outlook = JobOutlook(NoisyOracle(LENGTHS, 0.0))
    outlook.add(REQUESTS[:3], [Prepared(10, 300), ErrorInfo("context_length_exceeded", "Too long."), Prepared(5, 300)])
    assert (outlook.num_prompts, outlook.num_refused, outlook.prompt_tokens) == (2, 1, 15)
    assert outlook.totals.tokens == LENGTHS["r0"] + LENGTHS["r2"]


def test_what_nobody_knows_is_bounded_by_limits() -> None:
    """Answers of which nothing is known are apart, with their limits."""
    outlook = JobOutlook(Half())  # type: ignore[arg-type]
    outlook.add(REQUESTS, prepared(500))
    assert (outlook.num_unknown, outlook.max_unknown_tokens) == (250, 75_000)
    assert outlook.totals.num_answers == 250


def test_choices_are_answers() -> None:
    """`n` answers to one prompt are n answers, and its prompt is read once."""
    request = Request("r3", "x", max_tokens=300, api_fields={"n": 4})
    outlook = JobOutlook(NoisyOracle(LENGTHS, 0.0))
    outlook.add([request], prepared(1))
    assert (outlook.num_answers, outlook.prompt_tokens) == (4, 10)
    assert outlook.totals.tokens == pytest.approx(4 * LENGTHS["r3"])


def test_a_large_job_is_drawn_from_evenly() -> None:
    """Of more answers than are drawn each is as likely to be among them, the last as the first."""
    num = 3 * NUM_DRAWN
    lengths = {str(i): 1 + i for i in range(num)}
    outlook = JobOutlook(NoisyOracle(lengths, 0.0))
    requests = [Request(name, "x") for name in lengths]
    for start in range(0, num, 1000):
        chunk = requests[start : start + 1000]
        outlook.add(chunk, prepared(len(chunk), max_tokens=100_000))
    drawn = outlook.drawn
    assert len(drawn) == NUM_DRAWN
    thirds = np.bincount(drawn.lengths[:NUM_DRAWN] * 3 // (num + 1), minlength=3) / NUM_DRAWN
    assert thirds == pytest.approx([1 / 3] * 3, abs=0.03)


# -- seconds ---------------------------------------------------------------------------------------------------

COST = StepCost(0.02, 0.001, read_token_s=0.001)
STEPS = StepTimes(COST, max_running=16)


def really(lengths: dict[str, int], steps: StepTimes) -> float:
    """Seconds of the job itself, replayed with its true lengths."""
    config = ReplayConfig(
        Capabilities(max_running=steps.max_running),
        step_fixed_s=steps.cost.step_fixed_s,
        step_per_row_s=steps.cost.step_row_s,
    )
    engine = ReplayEngine(lengths, config)
    with Pipeline(engine=engine, predictor=OraclePredictor(lengths), clock=engine.clock) as pipeline:
        for _ in pipeline.stream([Request(name, "x", max_tokens=10**5) for name in lengths]):
            pass
    return engine.now_s


@pytest.mark.parametrize("num", [100, 2 * NUM_DRAWN])
def test_seconds_are_those_of_the_replayed_job(num: int) -> None:
    """Lengths that are known: the time is that of the job, also where it has more answers than are replayed."""
    lengths = {str(i): 1 + i * 37 % 400 for i in range(num)}
    outlook = JobOutlook(OraclePredictor(lengths))
    outlook.add([Request(name, "x") for name in lengths], prepared(num, prompt_tokens=0, max_tokens=1000))
    tokens = outlook.totals.tokens
    found = seconds_by_steps(outlook.drawn, 0, tokens, Interval(tokens, tokens), STEPS)
    assert found.expected == pytest.approx(really(lengths, STEPS), rel=0.02)


def test_seconds_are_as_uncertain_as_tokens_and_steps() -> None:
    """More tokens take longer; prompts are read; an error of the measured steps widens the interval."""
    outlook = JobOutlook(NoisyOracle(LENGTHS, 0.5))
    outlook.add(REQUESTS, prepared(500))
    tokens = outlook.totals.tokens
    around = Interval(0.8 * tokens, 1.2 * tokens)
    found = seconds_by_steps(outlook.drawn, 0, tokens, around, STEPS)
    assert found.interval.low < found.expected < found.interval.high
    assert found.interval.high - found.expected == pytest.approx(0.2 * tokens * STEPS.token_s(0))
    with_prompts = seconds_by_steps(outlook.drawn, 5_000, tokens, around, STEPS)
    assert with_prompts.expected - found.expected == pytest.approx(5)
    rough = seconds_by_steps(outlook.drawn, 0, tokens, around, StepTimes(replace(COST, relative_error=0.1), 16))
    assert rough.interval.high == pytest.approx(1.1 * found.interval.high)


def test_short_memory_takes_longer() -> None:
    """The scheduler that will run the job is tried with its memory."""
    outlook = JobOutlook(NoisyOracle(LENGTHS, 0.3))
    outlook.add(REQUESTS, prepared(500))
    tokens = outlook.totals.tokens
    times = [
        seconds_by_steps(outlook.drawn, 0, tokens, Interval(tokens, tokens), StepTimes(COST, 16, kv_tokens)).expected
        for kv_tokens in (1e9, 1_500)
    ]
    assert times[1] > 1.3 * times[0]


def test_seconds_by_rate() -> None:
    found = seconds_by_rate(1000, Interval(800, 1500), 100)
    assert (found.expected, found.interval) == (10, Interval(8, 15))


def seconds(prompt_tokens: int, cost: StepCost, num: int = 200, max_running: int = 16) -> float:
    """Of answers whose lengths are known, read from prompts of so many tokens."""
    lengths = {str(i): 1 + i * 37 % 400 for i in range(num)}
    outlook = JobOutlook(OraclePredictor(lengths))
    outlook.add([Request(name, "x") for name in lengths], prepared(num, prompt_tokens, max_tokens=1000))
    tokens = outlook.totals.tokens
    times = StepTimes(cost, max_running)
    return seconds_by_steps(outlook.drawn, num * prompt_tokens, tokens, Interval(tokens, tokens), times).expected


def test_a_row_costs_what_it_has_in_the_cache() -> None:
    """One row at a time, so that every step can be added up: the prompt and the answer so far are read in each."""
    lengths = np.array([1 + i * 37 % 400 for i in range(50)])
    cached = sum(50 * n + n * (n - 1) / 2 for n in lengths.tolist())
    plain = seconds(50, StepCost(0.02, 0.001), 50, max_running=1)
    assert plain == pytest.approx(0.021 * lengths.sum())
    assert seconds(50, StepCost(0.02, 0.001, 1e-5), 50, max_running=1) == pytest.approx(plain + 1e-5 * cached)


@pytest.mark.parametrize(("max_running", "passes_a_prompt"), [(1, (1, 1)), (64, (0.4, 0.6))])
def test_reading_costs_tokens_and_passes(max_running: int, passes_a_prompt: tuple[float, float]) -> None:
    """A prompt is read by itself where one row runs; where many do, those are read together that enter in one step."""
    plain = seconds(50, StepCost(0.02, 0.001), max_running=max_running)
    by_tokens = seconds(50, StepCost(0.02, 0.001, read_token_s=0.002), max_running=max_running)
    assert by_tokens - plain == pytest.approx(200 * 50 * 0.002)
    by_passes = seconds(50, StepCost(0.02, 0.001, read_fixed_s=1.0), max_running=max_running)
    least, most = passes_a_prompt
    assert 200 * least <= by_passes - plain <= 200 * most + 1e-6


def test_no_rows_at_once_are_refused() -> None:
    with pytest.raises(UsageError, match="0 rows"):
        StepTimes(COST, 0)


# -- prices ----------------------------------------------------------------------------------------------------

TABLE = """
currency = "EUR"
[models.small]
input = 0.5
output = 2
[models."big/one"]
input = 5
output = 20.5
batch_discount = 0.5
"""


def test_a_table_of_prices(tmp_path: Path) -> None:
    """By model, of a million tokens, with what holds for all; JSON says the same."""
    path = tmp_path / "prices.toml"
    path.write_text(TABLE)
    assert read_price(path, "small") == Price(0.5, 2, "EUR")
    assert read_price(path, "big/one") == Price(5, 20.5, "EUR", 0.5)
    assert read_price(path, "big/one").of(2_000_000, 1_000_000) == 30.5
    as_json = tmp_path / "prices.json"
    as_json.write_text(json.dumps({"input": 1, "output": 2, "models": {"m": {"output": 9}}}))
    assert read_price(as_json, None) == Price(1, 9)  # the only one that it has
    assert read_price(as_json, "other") == Price(1, 2)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (TABLE, "the model is m, and there is no price for it; it has small, big/one"),
        ("input = 1", "no 'output' price"),
        ("input = -1\noutput = 1", "input is -1"),
        ("input = true\noutput = 1", "input is True"),
        ("input = nan\noutput = 1", "input is nan"),
        ("input = 1\noutput = 1\nout = 3", "has 'out'"),
        ("input = 1\noutput = 1\nbatch_discount = 50", "batch_discount is 50"),
        ("input = 1\noutput = 1\ncurrency = 3", "currency is 3"),
        ("models = 3", "`models` is 3"),
        ("input = ", "can't be read as TOML"),
        ("", "there is no price for it; it has none"),
    ],
)
def test_a_wrong_table_is_told(tmp_path: Path, table: str, told: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(table)
    with pytest.raises(UsageError, match=told):
        read_price(path, "m")
