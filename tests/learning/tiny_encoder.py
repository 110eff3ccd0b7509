"""A tiny BERT with random weights, prompts whose kind decides the length, and what was trained of the two.

Made once a session by `functools.cache`: writing an ONNX model takes seconds, however small it is.
"""

from __future__ import annotations

import atexit
import itertools
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from lengthwise.learning.data import LengthData
from lengthwise.learning.labels import Target
from lengthwise.learning.training import TrainConfig, train
from lengthwise.predictors.encoder.predictor import EncoderPredictor
from lengthwise.types import Request

CENTRES = {"write a long story about": 300, "explain how one makes": 120, "name one fact about": 20}
THINGS = [f"{a} {b}" for a, b in itertools.product(("red", "small", "old", "wooden"), ("boats", "clocks", "lamps"))]
SPREAD = 0.3  # of log lengths
SETTINGS = {
    "epochs": 16,
    "learning_rate": 2e-3,
    "batch_size": 16,
    "hidden_width": 16,
    "num_bins": 24,
    "dropout": 0.0,
    "num_networks": 1,
    "text_share": 0.0,
}
NUM_POSITIONS = 64
NUM_PROMPTS = 140


def prompts(num: int, seed: int = 0) -> tuple[list[Request], np.ndarray]:
    """Requests, and four lengths of each (n × 4): log-normal around the kind's centre."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(list(CENTRES), num)
    things = rng.choice(THINGS, num)
    requests = [
        Request(str(i), f"{kind} {thing} {i}") for i, (kind, thing) in enumerate(zip(kinds, things, strict=True))
    ]
    centres = np.array([CENTRES[kind] for kind in kinds])
    return requests, np.exp(np.log(centres)[:, None] + rng.normal(0, SPREAD, (num, 4))).clip(1).round()


def data(num: int, seed: int = 0, limit: int | None = None) -> LengthData:
    """With reference answers for all but the first prompt."""
    requests, lengths = prompts(num, seed)
    reference = lengths.mean(axis=1)
    reference[0] = np.nan
    whole = LengthData(tuple(requests), lengths, np.zeros(lengths.shape, bool), reference=reference)
    return whole.within(limit)


@cache
def encoder_dir() -> str:
    """A folder as `save_pretrained` leaves it: two layers, width 32, a word-level WordPiece vocabulary."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = sorted({word for text in (*CENTRES, *THINGS) for word in text.split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    ids = {word: i for i, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    folder = str(_temporary("tiny-encoder-"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            max_position_embeddings=NUM_POSITIONS,
        )
        BertModel(config).save_pretrained(folder)
    return folder


def _temporary(prefix: str) -> Path:
    """A folder that is gone when the tests end."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def trained() -> EncoderPredictor:
    """What learned the longest of four answers, from NUM_PROMPTS prompts."""
    found = train("encoder", data(NUM_PROMPTS), Target("max"), TrainConfig(settings=settings()))
    assert isinstance(found, EncoderPredictor)
    return found


@cache
def saved() -> Path:
    """The folder that it is saved in; copy it to change it."""
    folder = _temporary("tiny-predictor-")
    trained().save(folder)
    return folder


def settings(**changes: object) -> dict[str, object]:
    return {**SETTINGS, "encoder": encoder_dir(), **changes}
