"""A trained network → the bytes of an ONNX model, all weights in it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch

from lengthwise.errors import UsageError
from lengthwise.learning.encoding import attention
from lengthwise.learning.encoding.network import WantedChances
from lengthwise.predictors.encoder.session import INPUTS

NEEDED = ("onnx", "onnxscript")


def check_can_export() -> None:
    """Raises UsageError where a package is missing: before an hour of training, not after."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"Training an encoder needs {' and '.join(missing)}, to write it for onnxruntime: `pip install "
            "lengthwise[encoder]`."
        )


def exported(model: WantedChances) -> bytes:
    """As ONNX, for any number of rows and tokens. Changes `model`, not what it says."""
    from onnxscript.optimizer import optimize

    rows, tokens = torch.export.Dim("rows"), torch.export.Dim("tokens")
    ids = torch.ones(3, 7, dtype=torch.int64)
    structure = torch.zeros(len(ids), model.num_columns)
    model.eval()
    attention.fuse(model)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            model,
            (ids, torch.ones_like(ids), structure),
            input_names=list(INPUTS),
            output_names=["chances"],
            dynamic_shapes=({0: rows, 1: tokens}, {0: rows, 1: tokens}, {0: rows}),
            dynamo=True,
            opset_version=attention.OPSET,
            custom_translation_table=attention.translations(),
            optimize=False,
            verbose=False,
        )
        assert program is not None, "the exporter gives a program where no file is named"
        # The exporter's own optimizing also fuses rotary positions (ModernBERT), wrongly where rows are several.
        optimize(program.model)
    return _stripped(program.model_proto)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own parts; only its errors are heard."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _stripped(proto: object) -> bytes:
    """Without notes on where in the source each step came from."""
    import onnx

    assert isinstance(proto, onnx.ModelProto)
    proto.ClearField("metadata_props")
    for part in (*proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    proto.graph.ClearField("metadata_props")
    proto.graph.ClearField("value_info")
    return bytes(proto.SerializeToString())
