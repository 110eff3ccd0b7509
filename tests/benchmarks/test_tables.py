"""From samples to ratios: what the reported figures are made of."""

from __future__ import annotations

import pytest

from lengthwise.benchmarks.tables import json_line, median_with_interval, ratios, share_identical, workload_hash
from lengthwise.benchmarks.throughput import Contender, Sample, rounds
from lengthwise.types import Request

REQUESTS = [Request(str(i), f"prompt {i}") for i in range(100)]


def sample(wall_s: float, texts: dict[str, str] | None = None) -> Sample:
    return Sample(wall_s, 100, 5_000, 8_000, 0, 0.1, 0, {}, texts or {"0": "answer"})


def contender(name: str, log: list[tuple[str, int]]) -> Contender:
    def run(requests):
        log.append((name, len(requests)))
        return sample(1.0)

    return Contender(name, f"the {name}", run)


def test_ratios_are_taken_round_by_round():
    """A machine that slows down for a whole round changes both sides alike, and the ratio not at all."""
    found = ratios({"generate": [sample(10), sample(40)], "default": [sample(2), sample(8)]})
    assert found["default_vs_generate"] == {"median": 5.0, "ci95": [5.0, 5.0]}
    assert "default_vs_paper" not in found


def test_the_interval_holds_the_median_and_widens_with_noise():
    """Bootstrap percentiles of the median: between the extremes, around the median, nothing for equal values."""
    calm = median_with_interval([1.0, 1.01, 0.99, 1.0, 1.02])
    wild = median_with_interval([1.0, 2.0, 0.5, 1.0, 3.0])
    for one in (calm, wild):
        assert one["ci95"][0] <= one["median"] <= one["ci95"][1]
    assert wild["ci95"][1] - wild["ci95"][0] > calm["ci95"][1] - calm["ci95"][0]


def test_identical_answers_are_counted_by_request():
    """One of four answers differs: 75 %."""
    plain = {str(i): "same" for i in range(4)}
    found = share_identical(
        {"generate": [sample(1, plain)], "default": [sample(1, {**plain, "2": "other"})]}, "default"
    )
    assert found == pytest.approx(0.75)


def test_each_round_has_every_contender_once_and_begins_with_another():
    """The order turns from round to round, and everyone warms up on a few requests first, uncounted."""
    log: list[tuple[str, int]] = []
    seen = [(number, name) for number, name, _ in rounds([contender(n, log) for n in "abc"], REQUESTS, 3)]
    assert log[:3] == [("a", 32), ("b", 32), ("c", 32)]
    assert seen == [(0, "a"), (0, "b"), (0, "c"), (1, "b"), (1, "c"), (1, "a"), (2, "c"), (2, "a"), (2, "b")]


def test_the_json_line_says_what_a_figure_rests_on():
    """Versions, hardware, workload and raw samples stand beside medians and ratios."""
    chosen = {name: contender(name, []) for name in ("generate", "default")}
    samples = {"generate": [sample(10)] * 3, "default": [sample(2)] * 3}
    line = json_line(chosen, samples, REQUESTS, {"seed": 0})
    assert line["workload"] == {"num_requests": 100, "sha256": workload_hash(REQUESTS)}
    assert line["ratios"]["default_vs_generate"]["median"] == 5
    assert len(line["samples"]["default"]) == 3
    assert line["samples"]["default"][0]["wall_s"] == 2
    assert {"torch", "transformers", "lengthwise"} <= set(line["versions"])
    assert workload_hash(REQUESTS) != workload_hash(REQUESTS[::-1])


def test_the_useful_share_is_the_effective_token_ratio():
    """Real output tokens over computed decode positions."""
    assert sample(1).useful_share == pytest.approx(5_000 / 8_000)
