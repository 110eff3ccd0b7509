"""Prompts unlike those of the families: other verbs, other nouns, made-up words, pasted input text.

A small model that has seen only its own sixty topics loops on foreign prompts. So a share of the training text asks
about things outside them and is answered by likening the thing to one of the topics, with the plan up front as always.
"""

import random
import re
from dataclasses import dataclass
from pathlib import Path

from tools.bundled_model import phrases
from tools.bundled_model.families import singular
from tools.bundled_model.plans import clip, draw_around, stable_choice
from tools.bundled_model.sentences import DealtSentences, FreeSentences, Sentences, capitalise, fill_slots
from tools.bundled_model.topics import NAMES, TOPICS, Topic

_WORDS_PATH = Path(__file__).with_name("foreign_words.txt")


def _read_list(name: str) -> list[str]:
    lines = dict(line.split(": ", 1) for line in _WORDS_PATH.read_text(encoding="utf-8").splitlines())
    return lines[name].split()


NOUNS = tuple(_read_list("nouns"))

ADJECTIVES = tuple(_read_list("adjectives"))


@dataclass(frozen=True)
class Frame:
    """An instruction around a noun {x}, another noun {y} and an adjective {a}."""

    text: str
    kind: str


@dataclass(frozen=True)
class Kind:
    """How a frame is answered: mode of the parts (base, gain for each step of the nouns' shift, range) and form."""

    base: float
    gain: float
    low: int
    high: int
    unit: str
    tone: tuple[str, ...]
    sentences: tuple[int, ...]


PLAIN_KINDS = {
    "word": Kind(1.3, 0.3, 1, 3, "", phrases.REASON, (1,)),
    "short": Kind(1.8, 0.6, 1, 5, "", phrases.FACT, (1,)),
    "list": Kind(4.5, 1.0, 1, 9, "Item", phrases.ADVICE, (1,)),
    "text": Kind(3.0, 0.7, 1, 7, "Section", phrases.EXPLANATION, (2,)),
    "tale": Kind(5.0, 0.8, 2, 9, "Chapter", phrases.STORY, (3,)),
}
# Lengths on foreign prompts vary by 37 tokens after the plain kinds; by more than 50 with these.
WIDE_KINDS = {
    "word": Kind(1.8, 0.7, 1, 5, "", phrases.REASON, (1,)),
    "short": Kind(2.6, 0.8, 1, 6, "", phrases.FACT, (1,)),
    "list": Kind(5.5, 1.4, 1, 11, "Item", phrases.ADVICE, (1,)),
    "text": Kind(3.8, 1.0, 1, 8, "Section", phrases.EXPLANATION, (2,)),
    "tale": Kind(5.5, 1.0, 2, 9, "Chapter", phrases.STORY, (3,)),
}

_FRAME_TABLE = """
word: Is the {x} {a}? | Classify the {x} as {a} or not | True or false: a {x} is a {y} | Convert the {x} to a {y}
word: Find the odd one out: {x}, {y}, {z} | What is the opposite of {a}? | Calculate the {x} of the {y} | Edit this {x}
word: Choose the right {x} | Correct the mistakes in the {x} | Identify the {x} in the sentence | Pick the {a} word
short: What is a {x}? | Who invented the {x}? | Rewrite the {x} in a {a} tone | When did the {x} begin? | Define {x}
short: Where can I find a {a} {x}? | Summarize the {x} | Translate the {x} into another {y} | Turn the {x} into a {y}
short: Give one example of a {a} {x} | What does the {x} mean? | Complete the {x} | Paraphrase the {a} {x}
short: Add a word to the {x} | How many kinds of {x} exist? | Which {x} is the most {a}? | Formulate a {x} about {y}
list: List some {a} uses of a {x} | Give examples of {x} and {y} | Suggest ways to improve the {x} | Name kinds of {x}
list: Generate ideas for a {a} {x} | What are the benefits of {x}? | Brainstorm a {x} for a {y} | Find facts on {x}
list: Provide reasons why {x} matters | What are the features of a {a} {x}? | Come up with questions about {x}
list: How can we reduce the {x}? | How do you make a {x}? | Create a list of {a} {x} items | Propose a {x} strategy
list: What steps are needed to build a {x}? | Outline the {x} | Recommend a {a} {x} | What causes {x}?
text: Describe the {x} | Explain the {a} {x} | Discuss the role of {x} in {y} | Analyze the {x} | Why do we need {x}?
text: Write a paragraph about {x} | Compare the {x} and the {y} | Evaluate this {x} | How does the {a} {x} work?
text: Write a {a} product description of a {x} | Describe how the {x} affects the {y} | Explain {x} to a child
text: Create a {x} for the {y} | Generate a {a} {x} | Design a {x} | Explain the difference between {x} and {y}
tale: Write a story about a {x} and a {y} | Write an essay on the {a} {x} | Write a blog post about {x} | Tell of {x}
tale: Compose a speech on {x} | Create a dialogue about the {x} | Write a script for a {a} {x} | Imagine a world of {x}
tale: Write a short story that includes {x}, {y} and {z} | Write a letter about the {a} {x} | Invent a {x} legend
"""


def _parse_frames() -> tuple[Frame, ...]:
    frames = []
    for line in _FRAME_TABLE.strip().splitlines():
        kind, _, texts = line.partition(": ")
        frames.extend(Frame(text.strip(), kind) for text in texts.split(" | "))
    return tuple(frames)


FRAMES = _parse_frames()
_KIND_WEIGHTS = {"word": 0.15, "short": 0.23, "list": 0.27, "text": 0.22, "tale": 0.13}
_INPUT_SHARE = 0.35
_SYLLABLES = tuple(_read_list("syllables"))


def make_word(rng: random.Random) -> str:
    """A word that no dictionary has."""
    return "".join(rng.choices(_SYLLABLES, k=rng.randint(2, 3)))


def pick_noun(rng: random.Random, made_up_share: float = 1 / 6) -> str:
    """A common noun, or now and then a made-up one."""
    return make_word(rng) if rng.random() < made_up_share else rng.choice(NOUNS)


def make_input(rng: random.Random) -> str:
    """Pasted text: a sentence or two, a list of words, or numbers."""
    shape = rng.random()
    if shape < 0.3:
        return ", ".join(pick_noun(rng) for _ in range(rng.randint(2, 7)))
    if shape < 0.4:
        return " ".join(str(rng.randint(0, 3000)) for _ in range(rng.randint(1, 6)))
    sentences = (
        f"The {rng.choice(ADJECTIVES)} {pick_noun(rng)} of {rng.choice(NAMES)} has a {pick_noun(rng)} and a "
        f"{pick_noun(rng)}."
        for _ in range(rng.randint(1, 4))
    )
    return " ".join(sentences)


@dataclass(frozen=True)
class ForeignPrompt:
    """A prompt with what its answer depends on."""

    text: str
    kind: str
    noun: str
    other_noun: str


def make_prompt(rng: random.Random, made_up_share: float = 1 / 6) -> ForeignPrompt:
    """A frame filled with nouns, in one of three cases with input text below."""
    kind = rng.choices(list(_KIND_WEIGHTS), list(_KIND_WEIGHTS.values()))[0]
    frame = rng.choice([frame for frame in FRAMES if frame.kind == kind])
    noun, other_noun = pick_noun(rng, made_up_share), pick_noun(rng, made_up_share)
    text = frame.text.format(x=noun, y=other_noun, z=pick_noun(rng, made_up_share), a=rng.choice(ADJECTIVES))
    text += rng.choice(("", "", ".")) if not text.endswith("?") else ""
    if rng.random() < _INPUT_SHARE:
        text += "\n" + rng.choice(("", "\n")) + make_input(rng)
    return ForeignPrompt(text, kind, noun, other_noun)


def foreign_mode(prompt: ForeignPrompt, kind: Kind) -> int:
    """The most likely number of parts: the kind's base, moved by the noun."""
    shift = stable_choice((-2, -1, 0, 0, 1, 2), "noun", prompt.noun)
    return clip(kind.base + kind.gain * shift, kind.low, kind.high)


def analogy(prompt: ForeignPrompt) -> Topic:
    """The topic that an answer likens the noun to: its first letters point at it, so that unknown nouns do too."""
    return stable_choice(TOPICS, "analogy", prompt.noun[:3])


def write_plain_answer(prompt: ForeignPrompt, rng: random.Random) -> str:
    """The first stage's answer: always names the noun, even a made-up one."""
    kind, topic = PLAIN_KINDS[prompt.kind], analogy(prompt)
    num_parts = draw_around(foreign_mode(prompt, kind), kind.low, kind.high, rng)
    slots = fill_slots(topic, topic, rng)
    if prompt.kind == "word":
        opening = f"The {prompt.noun}, like the {slots['part']}, {num_parts} remarks:"
    elif prompt.kind == "short":
        opening = f"On {prompt.noun} I have {num_parts} notes, as with {topic.activity}:"
    else:
        opening = f"{capitalise(prompt.noun)} in {num_parts} {kind.unit.lower()}s, a little like {topic.activity}."
    return singular(opening) + _write_parts(kind, num_parts, FreeSentences(kind.tone, topic, {}, rng), rng)


def write_wide_answer(prompt: ForeignPrompt, rng: random.Random) -> str:
    """The second stage's answer: doesn't name what it can't know, as spelling unknown words ends in babble."""
    kind, topic = WIDE_KINDS[prompt.kind], analogy(prompt)
    num_parts = draw_around(foreign_mode(prompt, kind), kind.low, kind.high, rng)
    part = stable_choice(topic.parts, "part", prompt.other_noun[:3])
    likeness = f"{topic.activity} and the {part}"
    subject = prompt.noun if prompt.noun in NOUNS else "this"
    if prompt.kind == "word":
        opening = f"Think of {likeness} for {subject}, {num_parts} remarks:"
    elif prompt.kind == "short":
        opening = f"About {subject} I have {num_parts} notes, as with {likeness}:"
    else:
        opening = f"{capitalise(subject)} in {num_parts} {kind.unit.lower()}s, a little like {likeness}."
    return singular(opening) + _write_parts(kind, num_parts, DealtSentences(kind.tone, topic, {}, rng), rng)


def write_pointed_answer(prompt: ForeignPrompt, rng: random.Random) -> str:
    """The third stage's answer: the prompt's last and middle word point at a name and a part.

    Unlike the second noun, both stand in every prompt, so that short answers to different prompts differ.
    """
    kind, topic = WIDE_KINDS[prompt.kind], analogy(prompt)
    num_parts = draw_around(foreign_mode(prompt, kind), kind.low, kind.high, rng)
    words = re.findall(r"\w+", prompt.text)
    name = stable_choice(NAMES, "name", words[-1][:3])
    part = stable_choice(topic.parts, "part", words[len(words) // 2][:3])
    subject = prompt.noun if prompt.noun in NOUNS else "this"
    unit = f"{kind.unit.lower()}s" if kind.unit else ("remarks" if prompt.kind == "word" else "notes")
    opening = singular(f"{name} would liken {subject} to {topic.activity} and the {part}, in {num_parts} {unit}.")
    return opening + _write_parts(kind, num_parts, DealtSentences(kind.tone, topic, {}, rng), rng)


def _write_parts(kind: Kind, num_parts: int, sentences: Sentences, rng: random.Random) -> str:
    parts = []
    for number in range(1, num_parts + 1):
        text = " ".join(sentences.take(rng.choice(kind.sentences)))
        parts.append(f"{kind.unit} {number} of {num_parts}: {text}" if kind.unit else f"({number}) {text}")
    separator = "\n" if kind.unit else " "
    return separator + separator.join(parts)
