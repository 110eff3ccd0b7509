"""A tiny model with random weights, and answers whose length one word of the prompt decides."""

from __future__ import annotations

import numpy as np
import pytest

from lengthwise.learning.data import LengthData
from lengthwise.types import Request

LIMIT = 256
SETTINGS = {"r": 8, "alpha": 16, "epochs": 8, "batch_size": 16, "learning_rate": 1e-2, "held_out": 0.25}
TOPICS = ["sea", "garden", "weather", "friend", "apple", "wheels", "journey", "cherry", "banana", "bicycle"]
FORMS = [
    "Write about the {}. {}",
    "Answer: what is the {}? {}",
    "{} and {}",
    "Explain to a friend how the {} works. {}",
]
SIZES = {"short": "A short, short, short answer", "long": "A long, long, long letter"}


def make_data(num_prompts=80):
    """Two answers a prompt: some 30 tokens with "short" in it, some 180 with "long", cut at LIMIT."""
    draw = np.random.default_rng(0)
    words = [(form, size, topic) for topic in TOPICS for form in FORMS for size in ("short", "long")]
    picked = [words[i] for i in draw.permutation(len(words))[:num_prompts]]
    requests = tuple(Request(f"r{i}", form.format(topic, SIZES[size])) for i, (form, size, topic) in enumerate(picked))
    middles = np.array([30 if size == "short" else 180 for _, size, _ in picked], float)
    lengths = np.round(middles[:, None] * np.exp(draw.normal(0, 0.2, (len(picked), 2))))
    return LengthData(requests, np.minimum(lengths, LIMIT), lengths >= LIMIT, limit=LIMIT, name="made up")


def prompts_for(size):
    """Three that are not in the data."""
    return [Request(f"{size}{i}", f"What about the {topic}? {SIZES[size]}") for i, topic in enumerate(TOPICS[:3])]


@pytest.fixture(scope="session")
def data():
    return make_data()


@pytest.fixture(scope="session")
def backbone(tiny_llama_dir):
    from lengthwise.engines.transformers.backbone import open_backbone
    from lengthwise.engines.transformers.options import ModelOptions

    return open_backbone(ModelOptions(str(tiny_llama_dir)))


@pytest.fixture(scope="session")
def trained(data, backbone):
    """`trained(kind)`: a predictor of that kind, made once."""
    from lengthwise.learning.labels import Target
    from lengthwise.learning.training import TrainConfig, train

    made = {}

    def make(kind):
        if kind not in made:
            config = TrainConfig(model=backbone.model, backbone=backbone, settings=SETTINGS)
            made[kind] = train(kind, data, Target(), config)
        return made[kind]

    return make


@pytest.fixture(scope="session")
def new_prompts():
    """`new_prompts("short")` and `new_prompts("long")`."""
    return prompts_for


@pytest.fixture(scope="session")
def settings():
    return SETTINGS
