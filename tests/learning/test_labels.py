"""Labels: one answer or a summary of samples, with what was cut counted as "at least"."""

from __future__ import annotations

import numpy as np
import pytest

from lengthwise.errors import UsageError
from lengthwise.learning.data import LengthData
from lengthwise.learning.labels import Target, binned, label, label_one
from lengthwise.types import Request

NAN = np.nan


def data(lengths: list[list[float]], limit: int | None = None) -> LengthData:
    requests = tuple(Request(str(i), f"prompt {i}") for i in range(len(lengths)))
    values = np.array(lengths, float)
    return LengthData(requests, values, np.zeros(values.shape, bool)).within(limit)


@pytest.mark.parametrize(
    ("target", "wanted"), [("max", [40, 7]), ("mean", [25, 6]), ("median", [25, 6]), ("q0.9", [37, 6.8])]
)
def test_summaries_of_samples(target: str, wanted: list[float]) -> None:
    """Maximum, mean, median and quantiles, missing samples left out."""
    found = label(data([[10, 20, 30, 40], [5, 7, NAN, NAN]]), Target(target))
    np.testing.assert_allclose(found.values, wanted)
    assert found.rows.tolist() == [0, 1]
    assert not found.is_censored.any()


def test_every_answer_is_a_label() -> None:
    """For one answer all samples count, each with its prompt; missing ones don't."""
    found = label(data([[10, 20], [5, NAN]]), Target("answer"))
    assert found.values.tolist() == [10, 20, 5]
    assert [request.id for request in found.requests] == ["0", "0", "1"]


def test_one_answer_a_prompt_is_drawn() -> None:
    """The draw takes existing samples only, all of them in time, and is the same for a seed."""
    many = data([[10, 20, NAN]] * 200)
    found = label_one(many, Target("answer"), seed=1)
    assert set(found.values) == {10, 20}
    assert found.values.tolist() == label_one(many, Target("answer"), seed=1).values.tolist()
    assert found.values.tolist() != label_one(many, Target("answer"), seed=2).values.tolist()


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("max", [True, False, True]),
        ("mean", [True, False, True]),
        ("median", [False, False, True]),
        ("q0.1", [False, False, True]),
        ("q0.9", [True, False, True]),
    ],
)
def test_a_summary_is_censored_if_a_cut_answer_could_move_it(target: str, wanted: list[bool]) -> None:
    """One cut answer of four leaves the median known, and the maximum not."""
    cut = data([[10, 20, 30, 100], [10, 20, 30, 40], [10, 100, 100, 100]], limit=100)
    assert label(cut, Target(target)).is_censored.tolist() == wanted


@pytest.mark.parametrize("name", ["", "maximum", "q", "q0", "q1", "q1.5", "q0.0", "q-0.5", "qnan", "0.9", "Max"])
def test_a_target_that_is_none(name: str) -> None:
    """Other names are refused with those that would do."""
    with pytest.raises(UsageError, match=r"`max`, `mean`"):
        Target(name)


def test_bins_round_up() -> None:
    """A bin is named by its end, as in the paper; a length on the edge stays."""
    assert binned([1, 50, 51, 120.5], 50).tolist() == [50, 50, 100, 150]
    assert binned([3, 4], 1).tolist() == [3, 4]
    with pytest.raises(UsageError, match="bin width is 0"):
        binned([1], 0)
