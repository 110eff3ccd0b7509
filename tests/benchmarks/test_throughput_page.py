"""From samples to shares, ratios, a table and one JSON line; rounds that survive a contender's failure."""

from __future__ import annotations

import json

import pytest
import torch
from rich.console import Console

from lengthwise.benchmarks.throughput.contender import Contender, Rounds
from lengthwise.benchmarks.throughput.memory import PeakMemory
from lengthwise.benchmarks.throughput.page import RATIOS, json_line, oracle_gap_closed, ratios, share_identical, table
from lengthwise.benchmarks.throughput.sample import Sample, batch_spans, most_at_once
from lengthwise.benchmarks.throughput.workload import Setup, Workload, kv_budget, recorded_workload
from lengthwise.errors import EngineError, UsageError
from lengthwise.learning.data_rows import read_file
from lengthwise.types import Request

REQUESTS = tuple(Request(str(i), f"prompt {i}") for i in range(100))
LENGTHS = {request.id: 50 for request in REQUESTS}
CPU = torch.device("cpu")
PROMISED = {
    *("default_vs_arrival16", "default_vs_paper", "default_vs_transformers_continuous", "default_vs_vllm_cpu"),
    *("default_vs_same_engine_arrival", "admission_vs_worst_case", "default_vs_oracle", "slots16_vs_arrival16"),
}


def sample(wall_s: float, **changes) -> Sample:
    return Sample(wall_s, LENGTHS, changes.pop("texts", {"0": "answer"}), 8_000, **changes)


class Fake(Contender):
    """Takes `wall_s` seconds, or fails from its second run on."""

    def __init__(self, name: str, log: list[tuple[str, int]], wall_s: float = 1.0, *, fails: bool = False) -> None:
        super().__init__(name, f"the {name}")
        self.log, self.wall_s, self.fails, self.is_closed = log, wall_s, fails, False

    def run(self, requests):
        self.log.append((self.name, len(requests)))
        if self.fails and len(requests) > 32:
            raise EngineError("it broke")
        return sample(self.wall_s)

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def setup():
    workload = Workload(REQUESTS, 512)
    return Setup(None, "", workload, 100, kv_budget(100, 512, None), 64)  # type: ignore[arg-type]


def test_all_promised_ratios_are_there_and_those_that_can_t_be_are_none():
    """Programs find the same keys whatever ran."""
    found = ratios({"default": [sample(2)], "arrival16": [sample(10)]})
    assert set(found) == set(RATIOS) == PROMISED
    assert found["default_vs_arrival16"]["median"] == 5
    assert all(value is None for name, value in found.items() if name != "default_vs_arrival16")


def test_ratios_are_taken_round_by_round():
    """A machine that slows down for a whole round changes both sides alike, and the ratio not at all."""
    found = ratios({"arrival16": [sample(10), sample(40)], "slots16": [sample(2), sample(8)]})
    assert found["slots16_vs_arrival16"] == {"median": 5.0, "ci95": [5.0, 5.0]}


def test_the_gap_to_the_oracle_is_told_in_time_to_last_answer():
    """Half of what the oracle gains over arrival order; nothing where it gains nothing."""
    runs = {"ours_arrival": [sample(10)], "default": [sample(9)], "oracle": [sample(8)]}
    assert oracle_gap_closed(runs) == pytest.approx(0.5)
    assert oracle_gap_closed({**runs, "oracle": [sample(10)]}) is None
    assert oracle_gap_closed({"default": [sample(9)]}) is None


def test_identical_answers_are_counted_by_request():
    """One of four answers differs: 75 %."""
    plain = {str(i): "same" for i in range(4)}
    runs = {"arrival16": [sample(1, texts=plain)], "default": [sample(1, texts={**plain, "2": "other"})]}
    assert share_identical(runs, "default", "arrival16") == pytest.approx(0.75)


def test_shares_of_a_sample():
    """Useful tokens over computed positions, rows put back for each request, requests that failed apart."""
    one = sample(2, num_put_back=4, num_errors=100)
    assert one.useful_share == pytest.approx(5_000 / 8_000)
    assert one.put_back_share == pytest.approx(4 / 200)
    assert one.requests_per_s == pytest.approx(50)  # a failed request is no answer
    assert one.useful_tokens_per_s == pytest.approx(2_500)


def test_idle_is_what_no_request_fills_of_the_slots_that_were_used():
    """Two slots for 10 s, one of them used for half the time; who leaves makes room for who comes."""
    one = sample(12, spans=[(2.0, 12.0), (2.0, 4.0), (4.0, 7.0)])
    assert one.num_slots == 2
    assert one.idle_share == pytest.approx(0.25)
    assert most_at_once([(0, 1), (1, 2), (2, 3)]) == 1
    assert (sample(1).idle_share, sample(1).num_slots) == (None, None)


def test_rows_of_a_batch_end_at_their_share_of_its_steps():
    """A row of 10 tokens in a batch of 40 steps had ended after a quarter of the time."""
    assert batch_spans(4.0, 8.0, [10, 40], 40) == [(4.0, 5.0), (4.0, 8.0)]


def test_each_round_has_every_contender_once_and_begins_with_another():
    """The order turns from round to round, and everyone warms up on a few requests first, uncounted."""
    log: list[tuple[str, int]] = []
    fakes = [Fake(name, log) for name in "abc"]
    samples = Rounds(fakes, CPU, lambda said: None).run(REQUESTS, 3, 32)
    assert log[:3] == [("a", 32), ("b", 32), ("c", 32)]
    assert "".join(name for name, _ in log[3:]) == "abcbcacab"
    assert {name: len(runs) for name, runs in samples.items()} == {"a": 3, "b": 3, "c": 3}
    assert all(fake.is_closed for fake in fakes)


def test_a_contender_that_fails_is_left_out_and_the_others_go_on():
    """What broke is said; nothing of it is compared."""
    said: list[str] = []
    log: list[tuple[str, int]] = []
    broken = Fake("b", log, fails=True)
    rounds = Rounds([Fake("a", log), broken, Fake("c", log)], CPU, said.append)
    samples = rounds.run(REQUESTS, 2, 8)
    assert list(samples) == [one.name for one in rounds.contenders] == ["a", "c"]
    assert all(len(runs) == 2 for runs in samples.values())
    assert "the b: left out. it broke" in said
    assert broken.is_closed


def test_memory_is_measured_around_each_run():
    """64 MiB that a run holds for a while show, and are gone for the next one."""
    with PeakMemory(CPU) as memory:
        block = torch.ones(2**24)
        del block
    if memory.peak_bytes is None:
        pytest.skip("This system does not tell how much memory a process held.")
    assert memory.grown_bytes >= 60 * 2**20
    with PeakMemory(CPU) as after:
        pass
    assert after.grown_bytes < 30 * 2**20


def test_the_json_line_says_what_a_figure_rests_on(setup):
    """Versions, hardware, workload, budget, settings and raw samples stand beside medians and ratios."""
    chosen = [Fake("arrival16", []), Fake("default", [])]
    samples = {"arrival16": [sample(10)] * 3, "default": [sample(2)] * 3}
    line = json.loads(json.dumps(json_line(chosen, samples, setup, {"seed": 0})))
    assert line["workload"]["num_requests"] == 100
    assert line["budget"] == {"kv_tokens": 16 * 612, "request_tokens": 612, "worst_case_rows": 16, "max_rows": 64}
    assert line["requests_per_s"] == {"arrival16": 10, "default": 50}
    assert line["ratios"]["default_vs_arrival16"] == 5
    assert line["ratios_ci95"]["default_vs_arrival16"] == [5, 5]
    assert line["ratios"]["default_vs_vllm_cpu"] is None
    assert set(line["ratios"]) == PROMISED
    assert len(line["samples"]["default"]) == 3
    assert {"torch", "transformers", "lengthwise"} <= set(line["versions"])


def test_the_table_has_a_line_for_each_contender():
    """What a contender doesn't tell is left blank."""
    console = Console(width=170, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    runs = {"arrival16": [sample(10)], "default": [sample(2, num_put_back=None)]}
    console.print(table([Fake("arrival16", []), Fake("default", [])], runs))
    shown = console.export_text()
    assert "5.00×" in shown
    assert "the default" in shown


def test_a_budget_smaller_than_one_request_is_refused_with_both_numbers():
    """Nothing could ever run in it."""
    with pytest.raises(UsageError, match=r"budget is 611 .* may take 612"):
        kv_budget(100, 512, 611)
    assert kv_budget(100, 512, 612) == 612
    assert kv_budget(100, 512, None) == 16 * 612


def test_a_smaller_budget_has_fewer_rows_and_pages(setup):
    """Batches shrink with the budget, and pages never hold more than it; one request always fits."""
    small = Setup(None, "", setup.workload, 100, 5 * 612 + 10, 64)  # type: ignore[arg-type]
    assert (setup.batch_rows, small.batch_rows) == (16, 5)
    assert small.num_pages(32) == (5 * 612 + 10) // 32
    assert Setup(None, "", setup.workload, 100, 612, 64).num_pages(256) == 3  # type: ignore[arg-type]


def test_recorded_lengths_are_each_prompt_s_first_and_end_at_the_limit(tmp_path):
    """Samples beyond the first are no other requests; the digest tells lengths apart."""
    path = tmp_path / "data.jsonl"
    rows = [{"id": "a", "prompt": "one", "length": [7, 90]}, {"id": "b", "prompt": "two", "length": 300}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    workload = recorded_workload(read_file(path), 100)
    assert workload.lengths == {"a": 7, "b": 100}
    assert workload.sha256 != Workload(workload.requests, 100).sha256
    path.write_text("".join(json.dumps({**row, "id": "a"}) + "\n" for row in rows))
    with pytest.raises(UsageError, match="'a' twice"):
        recorded_workload(read_file(path), 100)
