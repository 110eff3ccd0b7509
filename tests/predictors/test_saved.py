"""Saved predictors: what is wrong with a folder is said in one sentence, and nothing in it is run."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lengthwise.errors import PredictorError
from lengthwise.predictors.constant import ConstantPredictor
from lengthwise.predictors.provenance import Provenance
from lengthwise.predictors.saved import load_predictor
from lengthwise.predictors.text.predictor import TextPredictor
from lengthwise.types import Request, SamplingParams

REQUESTS = [Request(str(i), f"{'Write a story about' if i % 2 else 'What is'} thing {i % 20}") for i in range(60)]

LEARNED_FROM = Provenance("m", 60, 0, "answer", 0, (SamplingParams(),), "0", "0").to_json()


@pytest.fixture(scope="module")
def text_predictor() -> TextPredictor:
    return TextPredictor.fit(REQUESTS, [200 + i if i % 2 else 10 + i for i in range(60)], model="m")


@pytest.fixture
def folder(tmp_path: Path, text_predictor: TextPredictor) -> Path:
    text_predictor.save(tmp_path / "p")
    return tmp_path / "p"


def edit_header(folder: Path, **changes: Any) -> None:
    path = folder / "predictor.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_arrays(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    arrays = load_file(folder / "arrays.safetensors")
    change(arrays)
    save_file(arrays, folder / "arrays.safetensors")


def test_load_finds_the_kind(folder: Path, tmp_path: Path) -> None:
    """A folder says itself what it holds."""
    assert isinstance(load_predictor(folder), TextPredictor)
    ConstantPredictor.fit([3, 4]).save(tmp_path / "c")
    assert isinstance(load_predictor(str(tmp_path / "c")), ConstantPredictor)


def test_terms_that_were_cut_off_are_counted(folder: Path) -> None:
    """Whatever the last one looks like then: half a word may be another word."""
    path = folder / "vocabulary.txt"
    terms = path.read_text().split("\n")
    path.write_text("\n".join([*terms[:10], terms[0]]))
    with pytest.raises(PredictorError, match=f"11 terms of {len(terms)}: it was cut off"):
        load_predictor(folder)


def test_a_predictor_is_of_one_model(folder: Path) -> None:
    """A header that was edited to name another model than it learned from would pass for that one's."""
    edit_header(folder, model="other")
    with pytest.raises(PredictorError, match="said to be of 'other', and learned from 'm'"):
        load_predictor(folder)


def test_provenance_and_card_are_kept(text_predictor: TextPredictor, folder: Path) -> None:
    """What it learned from comes back as it was."""
    text_predictor.card["mae"] = 12.5
    text_predictor.save(folder)
    loaded = TextPredictor.load(folder)
    assert loaded.learned_from == text_predictor.learned_from
    assert loaded.learned_from.num_examples == 60
    assert loaded.learned_from.sampling == (SamplingParams(),)
    assert loaded.card == {"mae": 12.5}


@pytest.mark.parametrize("name", ["predictor.json", "arrays.safetensors", "vocabulary.txt"])
def test_missing_and_truncated_files(folder: Path, name: str) -> None:
    """Each file missing, empty, cut in half, or replaced by a folder: a PredictorError that names it."""
    path = folder / name
    content = path.read_bytes()
    for rest in (content[: len(content) // 2], b"", content[:20], b"\xff\xfe" + content):
        path.write_bytes(rest)
        with pytest.raises(PredictorError, match=folder.name):
            load_predictor(folder)
    path.unlink()
    with pytest.raises(PredictorError, match=folder.name):
        load_predictor(folder)
    path.mkdir()
    with pytest.raises(PredictorError, match=folder.name):
        load_predictor(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format_version": 3}, "format version 3; this version of lengthwise reads up to 2"),
        ({"format_version": None}, "format_version None"),
        ({"format_version": "1"}, "format_version '1'"),
        ({"kind": "magic"}, "kind 'magic'"),
        ({"kind": 3}, "'kind' is 3"),
        ({"learned_from": None}, "learned_from"),
        ({"learned_from": {"model": "m"}}, "learned_from"),
        ({"learned_from": {**LEARNED_FROM, "model": 3}}, "learned_from.model` is 3"),
        ({"learned_from": {**LEARNED_FROM, "num_examples": "many"}}, "learned_from.num_examples` is 'many'"),
        ({"learned_from": {**LEARNED_FROM, "num_censored": -1}}, "learned_from.num_censored` is -1"),
        ({"learned_from": {**LEARNED_FROM, "sampling": 5}}, "learned_from.sampling"),
        ({"learned_from": {**LEARNED_FROM, "sampling": [{}]}}, "learned_from.sampling"),
        ({"card": []}, "'card' is"),
    ],
)
def test_wrong_headers(folder: Path, changes: dict[str, Any], said: str) -> None:
    """A newer format, another kind and missing provenance are named."""
    edit_header(folder, **changes)
    with pytest.raises(PredictorError, match=said):
        load_predictor(folder)


@pytest.mark.parametrize("text", ["null", "[]", "3", "{", "[" * 100_000, '"text"'])
def test_headers_that_are_no_object(folder: Path, text: str) -> None:
    """Any JSON but an object is refused."""
    (folder / "predictor.json").write_text(text)
    with pytest.raises(PredictorError, match=r"predictor\.json"):
        load_predictor(folder)


def _drop(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda arrays: arrays.pop(name)


def _set(name: str, make: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    return lambda arrays: arrays.update({name: np.ascontiguousarray(make(arrays[name]))})


@pytest.mark.parametrize(
    "change",
    [
        _drop("idf"),
        _drop("centres"),
        _set("idf", lambda a: a[:-1]),
        _set("coefficients", lambda a: a[None]),
        _set("coefficients", lambda a: a.astype(np.float64)),
        _set("coefficients", lambda a: a * np.float32(np.nan)),
        _set("intercept", lambda a: a * np.float32(np.inf)),
        _set("residual_survival", lambda a: a[:, :-1]),
        _set("residual_survival", lambda a: a[:0]),
        _set("centres", lambda a: np.concatenate([a, a])),
        _set("marginal", lambda a: a[0]),
    ],
)
def test_wrong_arrays(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Arrays that are missing, of another shape or type, or not finite are refused when loaded, not when used."""
    edit_arrays(folder, change)
    with pytest.raises(PredictorError):
        load_predictor(folder)


def test_wrong_curves_do_no_harm(folder: Path) -> None:
    """Residual curves that rise or leave 0..1 load, and become "nothing is known"."""
    edit_arrays(folder, _set("residual_survival", lambda a: a[:, ::-1] * 3))
    edit_arrays(folder, _set("marginal", lambda a: -a))
    estimates = load_predictor(folder).predict([REQUESTS[0], Request("x", "")])
    assert estimates.capped(512).median.tolist() == [512, 512]


class _Bomb:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["predictor.json", "arrays.safetensors", "vocabulary.txt", "model.pkl"])
def test_pickle_is_never_loaded(folder: Path, tmp_path: Path, name: str) -> None:
    """A pickle under any name is refused or passed over; its code does not run."""
    (folder / name).write_bytes(pickle.dumps(_Bomb(tmp_path / "ran")))
    if name == "model.pkl":
        (folder / "predictor.json").unlink()
    with pytest.raises(PredictorError):
        load_predictor(folder)
    assert not (tmp_path / "ran").exists()


def test_an_unfinished_save_is_no_predictor(folder: Path, text_predictor: TextPredictor, monkeypatch: Any) -> None:
    """Saving over an old predictor and dying on the way leaves nothing that loads as if it were whole."""
    monkeypatch.setattr("lengthwise.predictors.folder.write_arrays", _die)
    with pytest.raises(OSError, match="disk full"):
        text_predictor.save(folder)
    with pytest.raises(PredictorError):
        load_predictor(folder)


def _die(*_: Any) -> None:
    raise OSError("disk full")


@pytest.mark.parametrize("change", [{"survival": "x"}, {"survival": [1, None]}, {"survival": [1.0]}, {"limit": "x"}])
def test_wrong_constants(tmp_path: Path, change: dict[str, Any]) -> None:
    """A constant predictor's header is checked too."""
    ConstantPredictor.fit([3, 4]).save(tmp_path)
    edit_header(tmp_path, **change)
    with pytest.raises(PredictorError):
        load_predictor(tmp_path)
