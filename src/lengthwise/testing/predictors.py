"""What every predictor keeps, in the spirit of scikit-learn's `check_estimator`."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lengthwise.estimates import GRID, LengthEstimates
from lengthwise.protocols import LengthPredictor
from lengthwise.types import Completion, FinishReason, Request, SamplingParams

PICKLES = {bytes([0x80, protocol]) for protocol in range(2, 10)}

ODD_PROMPTS = [
    "",
    " \n\t\u2028\x00",
    "x" * 1_000_000,
    "word " * 200_000,
    "\n" * 100_000,
    "写一个关于月亮的故事。请用三百字。",
    "اكتب قصة قصيرة",
    "🙂" * 50,
    "lone surrogate \ud800",
    "{}[]()<>%s%n\\'\"; DROP TABLE",
]


def check_predictor(
    predictor: LengthPredictor,
    requests: Sequence[Request],
    load: Callable[[Path], LengthPredictor] | None = None,
) -> None:
    """Raise AssertionError where `predictor` breaks the contract. `requests` are at least three that it knows. `load`
    makes it from the folder that it was saved in (its class's own `load`, where that takes nothing else)."""
    assert len(requests) >= 3, "give at least three requests"
    assert isinstance(predictor, LengthPredictor), "it has `model`, `predict` and `observe`"
    assert predictor.model is None or isinstance(predictor.model, str), f"`model` is {predictor.model!r}"
    odd = [Request(f"odd-{i}", prompt) for i, prompt in enumerate(ODD_PROMPTS)]
    odd.append(Request("odd-chat", ({"role": "system", "content": None}, {"role": "user"})))
    mixed = [*requests, *odd]
    before = copy.deepcopy(mixed)
    estimates = predictor.predict(mixed)
    assert mixed == before, "requests are left as they were"
    check_rows(estimates, len(mixed))
    _check_order_and_batch(predictor, mixed, estimates)
    _check_sampling_is_carried(predictor, requests)
    _check_no_requests(predictor)
    _check_observe(predictor, mixed)
    if hasattr(predictor, "save"):
        _check_save_and_load(predictor, mixed, load or type(predictor).load)  # type: ignore[attr-defined]


def check_rows(estimates: LengthEstimates, num: int) -> None:
    """`num` rows of proper distributions, in float32."""
    assert len(estimates) == num, f"{len(estimates)} estimates for {num} requests"
    curves = np.asarray(estimates.survival)
    assert curves.shape == (num, len(GRID)), f"curves are {curves.shape}, not {(num, len(GRID))}"
    columns = (curves, estimates.at_least, estimates.limit)
    assert {column.dtype for column in columns} == {np.dtype(np.float32)}, "columns are float32"
    assert np.isfinite(curves).all(), "curves are finite"
    assert (curves >= 0).all(), "chances are not negative"
    assert (curves <= 1).all(), "chances are at most 1"
    assert (np.diff(curves, axis=1) <= 1e-5).all(), "survival never rises"
    limited = estimates.capped(4096)
    medians, highs = limited.median, limited.quantile(0.9)
    assert np.isfinite(limited.mean()).all(), "expected lengths are finite"
    assert (medians >= 1).all(), "an answer has at least one token"
    assert (medians <= highs).all(), "quantiles grow"
    assert (highs <= 4096).all(), "limits hold"
    assert (estimates.given(1000).capped(4096).median > 1000).all(), "an answer that goes on gets longer"


def _same(left: LengthEstimates, right: LengthEstimates) -> bool:
    return all(
        np.allclose(getattr(left, name), getattr(right, name), atol=1e-5) for name in ("survival", "at_least", "limit")
    )


def _check_order_and_batch(predictor: LengthPredictor, requests: list[Request], estimates: LengthEstimates) -> None:
    assert _same(predictor.predict(requests), estimates), "the same question has the same answer"
    order = np.random.default_rng(0).permutation(len(requests))
    shuffled = predictor.predict([requests[i] for i in order])
    assert _same(shuffled, estimates[order]), "neighbours and order do not matter"
    for row in range(0, len(requests), max(1, len(requests) // 8)):
        assert _same(predictor.predict([requests[row]]), estimates[row]), "alone as in a batch"
    twice = predictor.predict([requests[0], requests[0]])
    assert _same(twice[0], twice[1]), "the same request twice is estimated twice, alike"


def _check_sampling_is_carried(predictor: LengthPredictor, requests: Sequence[Request]) -> None:
    request = requests[0]
    limited = Request(request.id, request.prompt, SamplingParams(temperature=1.0, seed=3), max_tokens=1)
    assert float(predictor.predict([limited]).capped(4096).quantile(0.9)[0]) > 0, "any sampling is estimated"
    natural = predictor.predict([Request(request.id, request.prompt, max_tokens=1)])
    assert _same(natural, predictor.predict([Request(request.id, request.prompt)])), "lengths are natural, not limited"


def _check_no_requests(predictor: LengthPredictor) -> None:
    assert len(predictor.predict([])) == 0, "no requests, no estimates"
    predictor.observe([], [])


def _check_observe(predictor: LengthPredictor, requests: Sequence[Request]) -> None:
    endings: tuple[FinishReason, ...] = ("stop", "length", "error")
    completions = [
        Completion(request.id, "", endings[i % 3], completion_tokens=i % 700) for i, request in enumerate(requests)
    ]
    predictor.observe(requests, completions)
    check_rows(predictor.predict(requests), len(requests))


def _check_save_and_load(
    predictor: LengthPredictor, requests: list[Request], load: Callable[[Path], LengthPredictor]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "new" / "predictor"
        for _ in range(2):  # the second time over the first
            predictor.save(folder)  # type: ignore[attr-defined]
        loaded = load(folder)
        assert loaded.model == predictor.model, "the model is saved with it"
        assert _same(loaded.predict(requests), predictor.predict(requests)), "a loaded predictor says the same"
        files = [path for path in folder.rglob("*") if path.is_file()]
        # A pickle opens with 0x80 and its protocol; a safetensors file may open with 0x80 and 0, which is a length.
        assert not [path for path in files if path.read_bytes()[:2] in PICKLES], "no pickle on disk"
