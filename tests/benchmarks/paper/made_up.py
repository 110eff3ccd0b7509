"""Prompts whose opening says how long the answers are."""

from __future__ import annotations

import json
import random
from pathlib import Path

OPENINGS = {"Write a long story about": 250, "What is": 15, "List uses of": 80}


def write_lengths(path: Path, num: int, seed: int) -> Path:
    """Two answers a prompt."""
    rng = random.Random(seed)
    with path.open("w") as file:
        for i in range(num):
            opening, tokens = rng.choice(list(OPENINGS.items()))
            lengths = [max(1, min(500, round(tokens * rng.lognormvariate(0, 0.2)))) for _ in range(2)]
            file.write(json.dumps({"prompt": f"{opening} thing {seed}-{i}?", "length": lengths}) + "\n")
    return path
