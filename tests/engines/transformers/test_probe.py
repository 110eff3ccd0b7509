import logging
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.costs import StepCost
from lengthwise.engines.transformers import ModelOptions, probe_store
from lengthwise.engines.transformers import probe as probe_module
from lengthwise.engines.transformers.cache import num_blocks_for
from lengthwise.engines.transformers.cost_fit import ReadSample, StepSample, fit_cost
from lengthwise.engines.transformers.loading import load_model
from lengthwise.engines.transformers.pass_timer import PassTimer
from lengthwise.engines.transformers.probe import Probe, from_json, probe
from lengthwise.engines.transformers.probe_points import (
    MAX_ROWS,
    READS,
    context_points,
    is_plausible,
    measure,
    measure_points,
    read_points,
    without_contradictions,
)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setenv("LENGTHWISE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def loaded(tiny_llama_dir):
    return load_model(ModelOptions(model=str(tiny_llama_dir)))


def linear(fixed_s, row_s):
    return lambda rows: fixed_s + row_s * rows


# -- what is chosen --------------------------------------------------------------------------------------------


@given(st.floats(1e-4, 10), st.floats(1e-6, 0.1), st.integers(1, 2000))
def test_the_choice_is_the_fewest_rows_near_the_best_rate(fixed_s, row_s, max_rows):
    """Within 10 % of the best that was measured; half of them would not be."""
    samples, is_exhausted = measure(linear(fixed_s, row_s), max_rows, clock=lambda: 0.0)
    chosen = Probe(samples, 256, is_exhausted).max_running(max_rows)
    rates = {rows: rows / seconds for rows, seconds in samples}
    enough, tie = 0.9 * max(rates.values()), 1 + 1e-9  # a rate of just nine tenths may fall on either side
    assert rates[chosen] * tie >= enough
    assert all(rate < enough * tie for rows, rate in rates.items() if rows < chosen)
    assert chosen <= min(max_rows, MAX_ROWS)


@pytest.mark.parametrize(("fixed_s", "row_s", "chosen"), [(0.003, 0.00018, 128), (0.02, 1e-5, 1024), (0.0, 0.01, 1)])
def test_how_steep_a_step_is_decides(fixed_s, row_s, chosen):
    """A small model on a CPU (measured: 3 ms + 0.18 ms a row), a device that never fills, one that one row fills."""
    samples, is_exhausted = measure(linear(fixed_s, row_s), MAX_ROWS, clock=lambda: 0.0)
    assert Probe(samples, 256, is_exhausted).max_running(MAX_ROWS) == chosen


def test_one_disturbed_sample_does_not_decide():
    """What was seen on two cores: 256 rows a seventh too slow, 512 too fast. All samples together tell."""
    seen = ((1, 0.0026), (16, 0.0051), (64, 0.0108), (128, 0.0177), (256, 0.0342), (512, 0.0560), (1024, 0.1115))
    assert Probe(seen, 256, False).max_running(MAX_ROWS) == 256


def test_measuring_ends_when_more_rows_give_nothing():
    """Two doublings without 10 % more each."""
    samples, is_exhausted = measure(linear(0.0, 0.01), MAX_ROWS)
    assert [rows for rows, _ in samples] == [1, 2, 4]
    assert not is_exhausted


def test_measuring_ends_when_its_time_is_over():
    """Steps of seconds are not taken to the end."""
    now = iter(range(0, 1000, 10))
    samples, _ = measure(linear(5.0, 0.0), MAX_ROWS, clock=lambda: next(now))
    assert len(samples) == 4


def test_measuring_ends_where_memory_does():
    """What was measured until then is used, and it is noted that there may be more."""

    def step_s(rows):
        if rows > 8:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        return 0.01

    samples, is_exhausted = measure(step_s, MAX_ROWS)
    assert [rows for rows, _ in samples] == [1, 2, 4, 8]
    assert is_exhausted
    assert not Probe(samples, 256, is_exhausted).covers(16)
    assert Probe(samples, 256, is_exhausted).covers(8)


def test_another_error_is_not_taken_for_want_of_memory():
    """A broken model must not look like a small device."""

    def step_s(rows):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        measure(step_s, 8)


@given(st.floats(1e-4, 1), st.floats(1e-6, 0.1))
def test_the_fitted_cost_is_the_line_that_was_measured(fixed_s, row_s):
    """Both terms come back, and the error says that the fit is exact."""
    samples, is_exhausted = measure(linear(fixed_s, row_s), MAX_ROWS, clock=lambda: 0.0)
    cost = Probe(samples, 256, is_exhausted).step_cost
    assert cost.relative_error < 1e-6
    assert cost.step_s(100) == pytest.approx(linear(fixed_s, row_s)(100), rel=0.02)


def test_a_step_that_is_no_line_says_so():
    """The error is there for planners to judge."""
    assert Probe(((1, 1.0), (2, 1.0), (4, 4.0)), 256, False).step_cost.relative_error > 0.1


TRUE = StepCost(0.003, 2e-4, 5e-7, 0.004, 1e-4)
GRID = [(rows, tokens) for rows in (1, 8, 64) for tokens in (32, 150, 608)]
STEPS = [StepSample(rows, rows * tokens, TRUE.step_s(rows, rows * tokens)) for rows, tokens in GRID]


def timed_reads(disturbed=None):
    """The disturbed one took half as long again."""
    tokens = [rows * tokens for rows, tokens in READS]
    return [ReadSample(num, TRUE.read_s(num) * (1.5 if i == disturbed else 1.0)) for i, num in enumerate(tokens)]


def test_every_term_comes_back():
    """Rows, tokens in the cache and tokens that are read are told apart."""
    assert fit_cost(STEPS, timed_reads()).to_json() == pytest.approx(TRUE.to_json(), abs=1e-9)


def test_the_error_is_that_of_passes_that_were_not_fitted():
    """The line through all leans to the pass that was disturbed; that through the others misses it by a third, and the
    error says at least that much of it."""
    assert fit_cost(STEPS, timed_reads()).relative_error < 1e-6
    found = fit_cost(STEPS, timed_reads(disturbed=4))
    assert found.relative_error**2 * (len(GRID) + len(READS)) > (1 / 3) ** 2


def test_no_term_is_negative():
    """Steps that get shorter with tokens in the cache were disturbed: the token costs nothing then."""
    found = fit_cost([StepSample(1, 32, 0.02), StepSample(1, 608, 0.01), StepSample(8, 256, 0.03)], [])
    assert found.step_context_s == 0


def test_without_readings_a_token_costs_a_row():
    """And a single step tells nothing of its error."""
    found = fit_cost([StepSample(4, 600, 0.01)], [])
    assert found.read_token_s == found.step_row_s
    assert (found.step_s(4), found.relative_error) == (pytest.approx(0.01), 1.0)


@given(st.integers(1, MAX_ROWS), st.integers(1, 3000), st.sampled_from([8, 150, 256, 4096]))
def test_the_points_fit(max_rows, max_blocks, max_context_tokens):
    """Within the memory that was counted on and the model's context, each once."""
    context_tokens = min(150, max_context_tokens)
    contexts = context_points(max_rows, max_blocks, context_tokens, max_context_tokens)
    assert len(set(contexts)) == len(contexts)
    assert all(1 <= rows <= max_rows and tokens <= max_context_tokens for rows, tokens in contexts)
    assert all(rows * num_blocks_for(tokens) <= max_blocks for rows, tokens in contexts)
    reads = read_points(max_blocks, max_context_tokens)
    assert reads
    assert all(tokens < max_context_tokens for _, tokens in reads)
    assert reads == [(1, 1)] or all(rows * num_blocks_for(tokens + 1) <= max_blocks for rows, tokens in reads)


def test_a_point_that_would_outlast_the_time_is_left_out():
    """So many times the tokens, so many times as long: 6.4 s come next, twice, and 10 s are left."""
    now = iter([1.0, 2.0])
    found = measure_points(lambda rows, tokens: tokens / 320, [(1, 32), (1, 128), (16, 128)], 12.0, lambda: next(now))
    assert found == ((1, 32, 0.1), (1, 128, 0.4))


def test_the_first_point_is_always_measured():
    """Else nothing would be known of it."""
    assert measure_points(lambda rows, tokens: 9.0, [(1, 32), (1, 32)], 0.0) == ((1, 32, 9.0),)


def test_points_end_where_memory_does():
    """As with rows."""

    def seconds(rows, tokens):
        if rows > 1:
            raise RuntimeError("CUDA out of memory")
        return 0.1

    assert measure_points(seconds, [(1, 32), (2, 32), (1, 8)], 1e9, lambda: 0.0) == ((1, 32, 0.1),)


def test_more_rows_never_take_less_time():
    """A time that contradicts a larger count was disturbed: the shorter one is taken, and nothing is kept."""
    busy = ((1, 0.6), (2, 0.03), (4, 0.04))
    assert without_contradictions(busy) == ((1, 0.03), (2, 0.03), (4, 0.04))
    assert not is_plausible(busy)
    assert is_plausible(((1, 0.031), (2, 0.03), (4, 0.04)))


# -- on a real model -------------------------------------------------------------------------------------------


def test_a_probe_of_a_tiny_model_is_short_and_kept(loaded, cache, monkeypatch):
    """The second time nothing is timed, and the same is known."""
    monkeypatch.setattr(probe_module, "is_plausible", lambda samples: True)  # this machine may be busy
    monkeypatch.setattr(probe_module, "MIN_CPU_SHARE", 0.0)
    first = probe(loaded, 64)
    assert first.samples[0][0] == 1
    assert all(0 < seconds < 5 for _, seconds in first.samples)
    monkeypatch.setattr(PassTimer, "step_s", None)
    assert probe(loaded, 64) == first
    assert first.context_tokens == probe_module.CONTEXT_TOKENS
    assert {tokens for _, tokens, _ in first.contexts} == {32, 256}
    assert [one[:2] for one in first.reads] == [(1, 32), (4, 32), (1, 128), (4, 128), (8, 128)]
    assert 0 < first.step_cost.read_s(100) < 5


def test_a_measurement_of_a_busy_device_is_not_kept(loaded, cache, monkeypatch, caplog):
    """It would slow down every later run; it is tried three times."""
    timed = []
    monkeypatch.setattr(PassTimer, "step_s", lambda self, rows, *tokens: timed.append((rows, *tokens)) or 1.0 / rows)
    with caplog.at_level(logging.WARNING, "lengthwise"):
        probe(loaded, 4)
    assert [one for one in timed if len(one) == 1] == [(1,), (2,), (4,)] * 3
    assert "busy" in caplog.text
    assert not list(cache.rglob("*.json"))


@pytest.mark.parametrize(("cpu_share", "is_kept"), [(1.0, True), (0.5, False)])
def test_a_measurement_beside_other_programs_is_not_kept(loaded, cache, monkeypatch, caplog, cpu_share, is_kept):
    """The samples agree with each other, but the process had only half of a core while they were taken."""
    monkeypatch.setattr(PassTimer, "step_s", lambda self, rows, tokens=0: 1.0 + rows / 1000)
    monkeypatch.setattr(time, "process_time", lambda: cpu_share * time.perf_counter())
    with caplog.at_level(logging.WARNING, "lengthwise"):
        probe(loaded, 4)
    assert bool(list(cache.rglob("*.json"))) == is_kept
    assert ("busy" in caplog.text) != is_kept


def test_more_memory_than_last_time_measures_again(loaded, cache, monkeypatch):
    """A measurement that memory ended is no answer for a larger memory; for a smaller one it is."""
    monkeypatch.setattr(probe_module, "MIN_CPU_SHARE", 0.0)  # this machine may be busy
    monkeypatch.setattr(PassTimer, "step_s", lambda self, rows, tokens=0: 1.0 + rows / 1000)
    assert probe(loaded, 4).samples[-1][0] == 4
    assert probe(loaded, 16).samples[-1][0] == 16
    assert probe(loaded, 8).samples[-1][0] == 16
    assert probe(loaded, 8).max_running(8) == 8


# -- keeping ---------------------------------------------------------------------------------------------------

KEY = {"model": "m", "threads": 2}


def read():
    return probe_store.read(KEY, lambda value: value["n"])


def test_what_is_kept_is_found_again(cache):
    """Under its own key only."""
    assert read() is None
    probe_store.write(KEY, {"n": 7})
    assert read() == 7
    assert probe_store.read({**KEY, "threads": 3}, lambda value: value["n"]) is None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"key": {}}', '{"key": {"model": "m", "threads": 2}}', "\xff"]
)
def test_a_damaged_file_is_passed_over_with_a_warning(cache, content, caplog):
    """And written anew by the next measurement."""
    path = probe_store.path_of(KEY)
    path.parent.mkdir(parents=True)
    path.write_bytes(content.encode("latin-1"))
    with caplog.at_level(logging.WARNING, "lengthwise"):
        assert read() is None
    assert "measuring again" in caplog.text
    probe_store.write(KEY, {"n": 8})
    assert read() == 8


WELL = {"samples": [[1, 1, 1.0]], "context_tokens": 1, "is_exhausted": False, "contexts": [], "reads": []}


def test_what_is_measured_can_be_kept():
    """The values that the next test damages are such as are written."""
    assert from_json(WELL) == Probe(((1, 1.0),), 1, False)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {**WELL, "samples": []},
        {**WELL, "samples": [[1, 1, -1.0]]},
        {**WELL, "samples": [[1, 1, float("nan")]]},
        {**WELL, "samples": [[1, 1]]},
        {**WELL, "samples": 3},
        {**WELL, "contexts": [[1, 0, 1.0]]},
        {**WELL, "reads": None},
        {**WELL, "context_tokens": "1"},
        {key: value for key, value in WELL.items() if key != "reads"},
    ],
)
def test_a_probe_that_nobody_measured_is_not_used(loaded, cache, value, monkeypatch):
    """Values that can't be are measured again."""
    monkeypatch.setattr(PassTimer, "step_s", lambda self, rows, tokens=0: 1.0 + rows / 1000)
    probe_store.write(probe_module._key(loaded), value)
    assert probe(loaded, 1).samples == ((1, 1.001),)


def test_a_folder_that_can_t_be_written_costs_a_warning(cache, caplog):
    """Here: a file stands in its place."""
    cache.write_text("in the way")
    with caplog.at_level(logging.WARNING, "lengthwise"):
        probe_store.write(KEY, {"n": 7})
        assert read() is None
    assert "can't be kept" in caplog.text


def test_writers_at_the_same_time_leave_a_whole_file(cache, caplog):
    """A reader never meets half of a file, and no temporary files stay."""
    writers = [
        threading.Thread(target=lambda n=n: [probe_store.write(KEY, {"n": n, "x": "y" * 50_000}) for _ in range(20)])
        for n in range(4)
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert read() in (None, 0, 1, 2, 3)
    assert read() in (0, 1, 2, 3)
    assert not caplog.records
    assert [file.suffix for file in (cache / "probes").iterdir()] == [".json"]


@pytest.mark.skipif(sys.platform != "linux", reason="the place differs by platform")
def test_the_place_is_the_user_s_cache_folder(monkeypatch, tmp_path):
    """XDG's convention on Linux; an own variable before it."""
    monkeypatch.delenv("LENGTHWISE_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert probe_store.cache_dir() == tmp_path / ".cache" / "lengthwise"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert probe_store.cache_dir() == Path("/x/lengthwise")


def test_a_user_without_a_home_has_a_cache(monkeypatch):
    """In a container a user may have neither HOME nor an entry in passwd: the folder for temporary files does."""
    for name in ("LENGTHWISE_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert probe_store.cache_dir().is_relative_to(tempfile.gettempdir())
