"""What figures stand on."""

from __future__ import annotations

from lengthwise.benchmarks.tables import median_with_interval, workload_hash
from lengthwise.types import Request

REQUESTS = [Request(str(i), f"prompt {i}") for i in range(100)]


def test_the_interval_holds_the_median_and_widens_with_noise():
    """Bootstrap percentiles of the median: between the extremes, around the median, nothing for equal values."""
    calm = median_with_interval([1.0, 1.01, 0.99, 1.0, 1.02])
    wild = median_with_interval([1.0, 2.0, 0.5, 1.0, 3.0])
    for one in (calm, wild):
        assert one["ci95"][0] <= one["median"] <= one["ci95"][1]
    assert wild["ci95"][1] - wild["ci95"][0] > calm["ci95"][1] - calm["ci95"][0]


def test_the_order_of_prompts_is_part_of_a_workload():
    """Another order is another workload: what runs last matters."""
    assert workload_hash(REQUESTS) == workload_hash(list(REQUESTS))
    assert workload_hash(REQUESTS) != workload_hash(REQUESTS[::-1])
