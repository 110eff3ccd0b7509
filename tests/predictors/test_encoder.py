"""The fine-tuned encoder as a predictor: what it says, what it survives, what its folder refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lengthwise.errors import PredictorError
from lengthwise.estimates import GRID, LengthEstimates
from lengthwise.predictors.encoder.curves import BinCurves
from lengthwise.predictors.encoder.predictor import MODEL, TOKENIZER, EncoderPredictor
from lengthwise.predictors.encoder.session import BATCH_ROWS, BATCH_TOKENS, Session, TextEncoder, _batches
from lengthwise.predictors.saved import load_predictor
from lengthwise.predictors.structure import NAMES
from lengthwise.testing import check_predictor
from lengthwise.types import Request
from tests.learning.tiny_encoder import NUM_POSITIONS, prompts, saved, trained

EDGES = np.array([1, 10, 100, 512], np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(saved(), tmp_path / "predictor")


def change_header(folder: Path, **fields: object) -> None:
    path = folder / "predictor.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


# -- from chances of bins to curves ----------------------------------------------------------------------------


def test_curves_pass_through_the_edges() -> None:
    """P(n tokens or more) at an edge is the sum of the bins from there on; the last bin goes on as 1 / n."""
    chances = np.array([[0.2, 0.3, 0.4, 0.1]], np.float32)
    estimates = LengthEstimates.from_survival(BinCurves.uncorrected(EDGES).survival(chances))
    # Between points of the grid curves are straight: half a cell is the error that is allowed.
    assert estimates.exceeds(9.5)[0] == pytest.approx(0.8, abs=0.03)
    assert estimates.exceeds(99.5)[0] == pytest.approx(0.5, abs=0.03)
    assert estimates.exceeds(511.5)[0] == pytest.approx(0.1, abs=0.01)
    assert estimates.exceeds(1024)[0] == pytest.approx(0.05, abs=0.005)


def test_correction_makes_ranks_even() -> None:
    """Chances that are too sure of the middle are corrected: nine tenths lie in the 90 % interval, half below the
    median, on lengths that the correction has not seen too."""
    rng = np.random.default_rng(0)
    edges = np.concatenate([[1], np.arange(20, 400, 10)]).astype(np.float32)
    sure = np.exp(-0.5 * ((edges - 200) / 50) ** 2)[None, :].repeat(4000, axis=0).astype(np.float32)
    lengths = rng.normal(220, 80, 8000).clip(1).round()
    none = np.zeros(4000, bool)
    said = BinCurves.uncorrected(edges).survival(sure / sure.sum(axis=1, keepdims=True))
    estimates = LengthEstimates.from_survival(BinCurves.fit(edges, said, lengths[:4000], none).corrected(said))
    held_out = lengths[4000:]
    inside = (held_out >= estimates.quantile(0.05)) & (held_out <= estimates.quantile(0.95))
    assert inside.mean() == pytest.approx(0.9, abs=0.02)
    assert (held_out <= estimates.median).mean() == pytest.approx(0.5, abs=0.04)


def test_censored_lengths_correct_as_at_least() -> None:
    """Half of the lengths cut at 200: what the curve says beyond 200 isn't taken for refuted."""
    edges = np.concatenate([[1], np.arange(20, 400, 10)]).astype(np.float32)
    rng = np.random.default_rng(0)
    chances = np.exp(-0.5 * ((edges + 5 - 200) / 40) ** 2)[None, :].repeat(4000, axis=0).astype(np.float32)
    chances /= chances.sum(axis=1, keepdims=True)
    lengths = rng.normal(200, 40, 4000).clip(1)
    is_cut = lengths > 200
    said = BinCurves.uncorrected(edges).survival(chances)
    kept = BinCurves.fit(edges, said, np.minimum(lengths, 200), is_cut)
    taken = BinCurves.fit(edges, said, np.minimum(lengths, 200), np.zeros(4000, bool))
    chance = [float(LengthEstimates.from_survival(c.corrected(said[:1])).exceeds(220)[0]) for c in (kept, taken)]
    assert chance[0] == pytest.approx(0.31, abs=0.05)
    assert chance[1] < 0.1


# -- prompts ---------------------------------------------------------------------------------------------------


def test_long_prompts_keep_head_and_tail() -> None:
    """More tokens than the encoder takes: the first three quarters and the last quarter are read."""
    encoder = TextEncoder.from_json(trained().weights.tokenizer, 8)
    ids, _ = encoder.encode(["red boats " * 3000 + "old lamps"])
    whole, _ = TextEncoder.from_json(trained().weights.tokenizer, 10**6).encode(["red boats " * 10 + "old lamps"])
    assert ids[0] == whole[0][:6] + whole[0][-2:]


def test_prompts_without_a_known_word_get_all_lengths() -> None:
    """Empty, or in a script that the vocabulary doesn't have: the distribution of the training lengths."""
    found = trained().predict([Request("a", ""), Request("b", "写一个故事"), Request("c", "name one fact about lamps")])
    assert np.array_equal(found.survival[0], trained().weights.marginal[0])
    assert np.array_equal(found.survival[1], trained().weights.marginal[0])
    assert not np.allclose(found.survival[2], trained().weights.marginal[0], atol=0.05)


def test_chats_are_read_from_the_message_to_be_answered() -> None:
    """The last message comes first, and decides."""
    story, fact = "write a long story about red boats", "name one fact about red boats"
    chats = [
        Request(str(i), ({"role": "user", "content": first}, {"role": "user", "content": last}))
        for i, (first, last) in enumerate([(story, fact), (fact, story)])
    ]
    medians = trained().predict(chats).median
    assert medians[0] < medians[1]


def test_batches_stay_within_rows_and_tokens() -> None:
    """No batch has too many rows or, padding included, too many tokens, but a prompt that is longer has its own."""
    sizes = [5000, *range(1, 200), 3000]
    order = sorted(range(len(sizes)), key=lambda row: sizes[row])
    batches = list(_batches(order, sizes))
    assert [row for batch in batches for row in batch] == order
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(sizes[row] for row in batch) <= BATCH_TOKENS
        assert len(batch) <= BATCH_ROWS


def test_conformance() -> None:
    """Odd prompts, order, neighbours, batches, saving and loading: what every predictor keeps."""
    check_predictor(trained(), prompts(40, seed=5)[0])


# -- folders ---------------------------------------------------------------------------------------------------


def test_loads_by_folder(folder: Path) -> None:
    """`--predictor DIR` finds it by its kind, and it says what it said."""
    requests = prompts(10, seed=3)[0]
    loaded = load_predictor(folder)
    assert isinstance(loaded, EncoderPredictor)
    assert np.allclose(loaded.predict(requests).survival, trained().predict(requests).survival, atol=1e-6)
    assert loaded.learned_from.target == "max-of-4"


@pytest.mark.parametrize("name", [MODEL, TOKENIZER])
def test_damaged_files_are_found(folder: Path, name: str) -> None:
    """One byte that is another, and a file that is missing."""
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(PredictorError, match="damaged or changed"):
        EncoderPredictor.load(folder)
    (folder / name).unlink()
    with pytest.raises(PredictorError, match="can't be read"):
        EncoderPredictor.load(folder)


def test_weights_in_other_files_are_refused(tmp_path: Path) -> None:
    """A model that names a file for its weights is refused before anything is read."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(trained().weights.model)
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    outside = tmp_path / "weights.bin"
    outside.write_bytes(weights.raw_data)
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=str(outside))
    encoder = TextEncoder.from_json(trained().weights.tokenizer, NUM_POSITIONS)
    with pytest.raises(PredictorError, match="other files"):
        Session(model.SerializeToString(), encoder, len(trained().weights.curves.edges), len(NAMES))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_tokens": "9"}, "int was expected"),
        ({"max_tokens": NUM_POSITIONS + 1}, "can't be run"),
        ({"encoder_sha256": None}, "str was expected"),
        ({"learned_from": {}}, "learned_from"),
        ({"format_version": 99}, "Install a newer one"),
        ({"structure": ["colour"]}, "1 columns of structure"),
    ],
)
def test_wrong_headers_are_refused(folder: Path, fields: dict[str, object], message: str) -> None:
    """With what is wrong; more tokens than the encoder has positions for among it."""
    change_header(folder, **fields)
    with pytest.raises(PredictorError, match=message):
        EncoderPredictor.load(folder)


@pytest.mark.parametrize("content", [b"", b"no model", b"\x80\x04K\x01."], ids=["empty", "text", "pickle"])
def test_what_is_no_model_is_refused(content: bytes) -> None:
    """Even with a digest that fits."""
    encoder = TextEncoder.from_json(trained().weights.tokenizer, NUM_POSITIONS)
    with pytest.raises(PredictorError, match="no ONNX model"):
        Session(content, encoder, 4, len(NAMES))


def test_a_model_for_other_bins_is_refused() -> None:
    """The number of its chances is checked when it is opened."""
    encoder = TextEncoder.from_json(trained().weights.tokenizer, NUM_POSITIONS)
    with pytest.raises(PredictorError, match="5 finite ones were expected"):
        Session(trained().weights.model, encoder, 5, len(NAMES))


def test_what_is_no_tokenizer_is_refused() -> None:
    with pytest.raises(PredictorError, match="tokenizer can't be read"):
        TextEncoder.from_json("{}", 8)


def test_levels_that_fall_are_refused(folder: Path) -> None:
    """Bins and levels are checked, as they come from a file."""
    from safetensors.numpy import load_file, save_file

    arrays = load_file(folder / "arrays.safetensors")
    save_file({**arrays, "edges": arrays["edges"][::-1].copy()}, folder / "arrays.safetensors")
    with pytest.raises(PredictorError, match="bins or levels"):
        EncoderPredictor.load(folder)


def test_grid_and_marginal_fit() -> None:
    """The distribution of all lengths is one curve on the grid."""
    assert trained().weights.marginal.shape == (1, len(GRID))
