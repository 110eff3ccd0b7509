"""What passes of an engine take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lengthwise.costs import StepCost
from lengthwise.errors import InputError, UsageError

COST = StepCost(0.01, 0.001, 1e-6, 0.004, 2e-4, 0.05)


def test_a_step_and_a_reading_are_what_their_terms_add_up_to() -> None:
    """By hand: 10 ms, 8 rows of 1 ms, 1,000 tokens in the cache of 1 µs; 4 ms and 100 tokens of 0.2 ms."""
    assert COST.step_s(8, 1000) == pytest.approx(0.019)
    assert COST.read_s(100) == pytest.approx(0.024)
    assert COST.row_tokens_per_s(8, 125) == pytest.approx(1 / 0.019)


@pytest.mark.parametrize("is_kept_by_an_engine", [False, True])
def test_a_file_gives_it_back(tmp_path: Path, is_kept_by_an_engine: bool) -> None:
    """One that was written for it, or an engine's own measurement, which holds more."""
    content: object = COST.to_json()
    if is_kept_by_an_engine:
        content = {"key": {"model": "m"}, "value": {"samples": [], "step_cost": content}}
    path = tmp_path / "cost.json"
    path.write_text(json.dumps(content))
    assert StepCost.read(path) == COST


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"fixed_s": 1}', "has fixed_s"),
        ("{}", "has nothing"),
        ("[1]", r"has \[1\]"),
        ('{"value": 3}', "has value"),
        ("nonsense", "can't be read"),
    ],
)
def test_a_file_with_something_else_is_told(tmp_path: Path, content: str, told: str) -> None:
    """With the names that there are."""
    path = tmp_path / "cost.json"
    path.write_text(content)
    with pytest.raises(InputError, match=f"{told}.*step_fixed_s"):
        StepCost.read(path)


@pytest.mark.parametrize("bad", [{"step_row_s": -1.0}, {"relative_error": float("nan")}, {"read_fixed_s": True}])
def test_a_value_that_can_t_be_is_refused(bad: dict[str, float]) -> None:
    """By its name."""
    with pytest.raises(UsageError, match=next(iter(bad))):
        StepCost(**bad)
