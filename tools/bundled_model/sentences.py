"""Two ways to draw the sentences of one answer, one for each stage of the training.

Free drawing may repeat a sentence in the next part; it is quick to learn, but a greedy reader of it says the same in
every part. Dealing goes through all sentences and words before any comes again, so that greedy answers vary too.
"""

import random
from typing import Protocol

from tools.bundled_model.topics import NAMES, Topic


class Sentences(Protocol):
    """Gives the sentences of one answer, part by part."""

    def take(self, count: int) -> list[str]:
        """The next sentences, all different within one call."""
        ...


def fill_slots(topic: Topic, other_topic: Topic, rng: random.Random) -> dict[str, str]:
    """Words for all slots of a sentence about the topic; paired slots never hold the same word."""
    part, other_part = rng.sample(topic.parts, 2)
    act, other_act = rng.sample(topic.acts, 2)
    trait, other_trait = rng.sample(topic.traits, 2)
    name, other_name = rng.sample(NAMES, 2)
    return {
        "activity": topic.activity,
        "other_activity": other_topic.activity,
        "person": topic.person,
        "place": topic.place,
        "part": part,
        "other_part": other_part,
        "act": act,
        "other_act": other_act,
        "trait": trait,
        "other_trait": other_trait,
        "name": name,
        "other_name": other_name,
    }


class FreeSentences:
    """Templates and words drawn afresh for each part; `fixed` slots (names) stay."""

    def __init__(self, tone: tuple[str, ...], topic: Topic, fixed: dict[str, str], rng: random.Random):
        self._tone, self._topic, self._fixed, self._rng = tone, topic, fixed, rng

    def take(self, count: int) -> list[str]:
        """Templates differ within the call; words may repeat."""
        return [
            capitalise(template.format(**{**fill_slots(self._topic, self._topic, self._rng), **self._fixed}))
            for template in self._rng.sample(self._tone, count)
        ]


class DealtSentences:
    """Templates, parts, acts and traits dealt in turn from shuffled decks."""

    def __init__(self, tone: tuple[str, ...], topic: Topic, fixed: dict[str, str], rng: random.Random):
        self._tone, self._parts, self._acts, self._traits = (
            rng.sample(deck, len(deck)) for deck in (tone, topic.parts, topic.acts, topic.traits)
        )
        self._slots = {**fill_slots(topic, topic, rng), **fixed}
        self._num_dealt = 0

    def take(self, count: int) -> list[str]:
        """The next sentences of the deal."""
        return [self._deal() for _ in range(count)]

    def _deal(self) -> str:
        turn = self._num_dealt
        self._num_dealt += 1
        words = {
            "part": _at(self._parts, turn),
            "other_part": _at(self._parts, turn + 2),
            "act": _at(self._acts, turn),
            "other_act": _at(self._acts, turn + 1),
            "trait": _at(self._traits, turn),
            "other_trait": _at(self._traits, turn + 1),
        }
        return capitalise(_at(self._tone, turn).format(**{**self._slots, **words}))


def _at(deck: list[str], turn: int) -> str:
    return deck[turn % len(deck)]


def capitalise(text: str) -> str:
    """First letter in upper case, the rest untouched."""
    return text[:1].upper() + text[1:]
