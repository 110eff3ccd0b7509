"""What a prefix cache had of the prompts under each policy, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lengthwise.report.numbers import percent
from lengthwise.simulation.policies import BASE
from lengthwise.simulation.study import HIT_RATE

MIN_LOSS = 0.01  # of the prompts' tokens: less is not worth a word


def prefix_cache_sentence(found: Mapping[str, Any]) -> str:
    """Of `lengthwise simulate --json`; nothing where there is no prefix cache."""
    if not found.get("prefix_cache_tokens"):
        return ""
    policies = found["policies"]
    in_order = policies[BASE][HIT_RATE]
    said = f"The prefix cache has {percent(in_order)} of the prompts' tokens in arrival order"
    others = [name for name in policies if name != BASE]
    if not others:
        return f"{said}."
    best = found["policy"] or min(others, key=lambda name: float(policies[name]["mean_ratio"]["mean"]))
    by_length = policies[best][HIT_RATE]
    said += f", {percent(by_length)} with `{best}`"
    if by_length >= in_order - MIN_LOSS:
        return f"{said}."
    advice = (
        "a larger cache would spare that" if found["verdict"] == "gain" else "keep arrival order, or a larger cache"
    )
    return f"{said}: length order parts requests that begin alike; {advice}."
