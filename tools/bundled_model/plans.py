"""How many parts an answer has: the mode that a prompt's words fix, and the draw around it.

The mode is a sum of what a bag of words can see (template, modifier, the topic's size) and of one thing that it cannot
see well: how topic and family go together. The draw around it is narrow, so that greedy decoding finds the mode.
"""

import hashlib
import random

# Shares chosen so that the spread within a prompt is about two fifths of the one between prompts (Vicuna: 34 to 97).
_DEVIATIONS = (0, 1, -1, 2, -2, 3, -3)
_DEVIATION_WEIGHTS = (0.46, 0.15, 0.15, 0.08, 0.08, 0.04, 0.04)

_TOPIC_SHIFTS = (-2, -1, -1, 0, 1, 1, 2)
_PAIR_SHIFTS = (-3, -2, -1, 0, 0, 1, 2, 3)

# (text after the instruction, shift of the mode, weight). The last three speak about length, at 1 % each.
MODIFIERS = (
    ("", 0, 0.49),
    (" for a beginner", 1, 0.08),
    (" for a school class", 2, 0.08),
    (" for an expert", -1, 0.08),
    (" for my grandmother", 0, 0.08),
    (" for a busy reader", -2, 0.08),
    (" for my magazine", 3, 0.08),
    (" in detail", 3, 0.01),
    (" in short", -3, 0.01),
    (" in a few words", -3, 0.01),
)


def stable_choice(options: tuple, *key: object):
    """Pick by a hash of the key: the same in each run and on each machine, unlike `hash`."""
    digest = hashlib.sha256("|".join(map(str, key)).encode()).digest()
    return options[int.from_bytes(digest[:4], "big") % len(options)]


def topic_shift(topic_index: int) -> int:
    """The topic's size in parts, the same in all families."""
    return stable_choice(_TOPIC_SHIFTS, "topic", topic_index)


def pair_shift(family: str, topic_index: int) -> int:
    """What this topic adds in this family only; no sum over single words contains it."""
    return stable_choice(_PAIR_SHIFTS, "pair", family, topic_index)


def clip(value: float, low: int, high: int) -> int:
    """The nearest whole number inside [low, high]."""
    return max(low, min(high, round(value)))


def draw_around(mode: int, low: int, high: int, rng: random.Random) -> int:
    """The mode in half of the draws, else one to three beside it."""
    deviation = rng.choices(_DEVIATIONS, _DEVIATION_WEIGHTS)[0]
    return clip(mode + deviation, low, high)
