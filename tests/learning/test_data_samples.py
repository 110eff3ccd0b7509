"""Rows with several samples, each of which may be missing, or cut for itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lengthwise.errors import InputError
from lengthwise.learning.data import LengthData, read_data


def read(folder: Path, *rows: dict[str, Any]) -> LengthData:
    path = folder / "log.jsonl"
    path.write_text("".join(json.dumps({"prompt": "x", **row}) + "\n" for row in rows))
    return read_data(path)


def test_each_sample_was_cut_or_not(tmp_path: Path) -> None:
    """A list of finish reasons belongs to the lengths one by one; one reason is that of all."""
    data = read(
        tmp_path,
        {"length": [3, 40], "finish_reason": ["stop", "length"]},
        {"length": [5, 6], "finish_reason": "length"},
        {"length": [7, 50], "finish_reason": ["stop", "stop"], "max_tokens": 50},
    )
    assert data.is_cut.tolist() == [[False, True], [True, True], [False, True]]


def test_a_sample_that_is_null_is_missing(tmp_path: Path) -> None:
    """The others count."""
    data = read(tmp_path, {"length": [None, 40], "finish_reason": ["error", "length"]}, {"length": [1, 2]})
    np.testing.assert_array_equal(data.lengths, [[np.nan, 40], [1, 2]])
    assert data.is_cut.tolist() == [[False, True], [False, False]]


def test_how_answers_were_collected_is_no_metadata(tmp_path: Path) -> None:
    """Nothing of the answers is left where a predictor could read it."""
    told = {"temperatures": [0.3], "model": "m", "error": [None], "text": ["An answer"], "family": "f"}
    assert read(tmp_path, {"length": [1], "finish_reason": ["stop"], **told}).requests[0].metadata == {"family": "f"}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"length": [None, None]}, "length has only null"),
        ({"length": []}, "length is an empty list"),
        ({"length": None}, "length is None"),
        ({"length": [1, 2], "finish_reason": ["stop"]}, "2 lengths and 1 finish reasons"),
        ({"length": [1, "2"]}, "length is '2'"),
        ({"length": [None, 60], "max_tokens": 50}, "the length 60 lies beyond"),
    ],
)
def test_what_can_t_be_is_named(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        read(tmp_path, row)


def test_collected_answers_are_of_a_model(tmp_path: Path) -> None:
    """Its identity, where all are of one; the names in other logs say nothing sure of weights."""
    collected = {"length": [3], "temperatures": [0], "model": "llama-1"}
    assert read(tmp_path, collected, collected).model == "llama-1"
    assert read(tmp_path, collected, {**collected, "model": "llama-2"}).model is None
    assert read(tmp_path, collected, {"length": 5}).model is None
    assert read(tmp_path, {"length": 3, "model": "gpt-x"}).model is None
