"""The twelve families of instructions: prompt templates, plan ranges and answer frames.

An answer opens with its plan ("Here are 5 tips ..."), and its parts are marked "i of n", which teaches a small model to
end at n. Families whose answers differ much in length do not share an opening.
"""

import random
import re
from dataclasses import dataclass

from tools.bundled_model import phrases
from tools.bundled_model.plans import MODIFIERS, clip, draw_around, pair_shift, topic_shift
from tools.bundled_model.sentences import DealtSentences, FreeSentences, Sentences
from tools.bundled_model.topics import Topic


@dataclass(frozen=True)
class Family:
    """One kind of instruction.

    prompts: (template, shift of the mode in parts). openings hold {n}. unit names a part. sentences: how many a part
    has, drawn evenly. gain: parts for each step of the topic's and modifier's shift. weight: share of the mix.
    """

    name: str
    weight: float
    prompts: tuple[tuple[str, int], ...]
    openings: tuple[str, ...]
    unit: str
    tone: tuple[str, ...]
    base: float
    low: int
    high: int
    gain: float
    sentences: tuple[int, ...]
    closings: tuple[str, ...] = ()
    separator: str = "\n"


@dataclass(frozen=True)
class Combination:
    """What identifies a prompt: held-out prompts have combinations that training never uses."""

    family: Family
    topic: Topic
    template_index: int
    modifier_index: int

    @property
    def key(self) -> str:
        return f"{self.family.name}|{self.topic.activity}|{self.template_index}|{self.modifier_index}"


FAMILIES = (
    Family(
        name="tips",
        weight=0.10,
        prompts=(
            ("Give me some tips for {activity}", 0),
            ("What should I keep in mind when {activity}?", -1),
            ("List all the advice you have on {activity}", 3),
            ("Name a few useful habits for {activity}", -2),
            ("I need good advice about {activity}", 1),
            ("Share your best tricks for {activity} with me", 0),
        ),
        openings=("Here are {n} tips for {activity}.", "These {n} tips will help you with {activity}."),
        unit="Tip",
        tone=phrases.ADVICE,
        base=5,
        low=1,
        high=11,
        gain=0.9,
        sentences=(1,),
    ),
    Family(
        name="explain",
        weight=0.10,
        prompts=(
            ("Explain {activity} to me", 0),
            ("How does {activity} work?", -1),
            ("Why is the {part} important for {activity}?", -2),
            ("Give me a complete introduction to {activity}", 2),
            ("Describe what happens when somebody is {activity}", 0),
            ("Write an essay about {activity}", 3),
        ),
        openings=("This explanation of {activity} has {n} parts.", "To explain {activity}, I need {n} parts."),
        unit="Part",
        tone=phrases.EXPLANATION,
        base=3.4,
        low=1,
        high=9,
        gain=0.6,
        sentences=(2, 2, 3),
    ),
    Family(
        name="story",
        weight=0.10,
        prompts=(
            ("Tell me a story about a {person}", 0),
            ("Write a tale in which a {person} loses the {part}", 1),
            ("Make up a short bedtime story about {activity}", -2),
            ("Invent an adventure of a {trait} {person}", 2),
            ("Write a novel chapter about {activity}", 3),
            ("Tell a funny story that happens {place}", -1),
        ),
        openings=("A story in {n} scenes about a {person}.", "The tale of {name} the {person}, in {n} scenes."),
        unit="Scene",
        tone=phrases.STORY,
        base=5.2,
        low=2,
        high=12,
        gain=0.9,
        sentences=(3, 3, 3, 4),
        separator="\n\n",
    ),
    Family(
        name="letter",
        weight=0.09,
        prompts=(
            ("Write a letter to a {person}", 0),
            ("Draft a polite email about {activity}", -1),
            ("Write to my friend {name} about {activity}", 1),
            ("Compose a long letter of thanks to a {person}", 3),
            ("Write a note that asks for the {part}", -2),
            ("Help me write a complaint about the {part} of a {person}", 1),
        ),
        openings=(
            "Dear {name},\n\nI write to you about {n} points.",
            "Hello {name},\n\nthis letter about {activity} has {n} points.",
        ),
        unit="Point",
        tone=phrases.LETTER,
        base=3.2,
        low=1,
        high=8,
        gain=0.6,
        sentences=(2, 2, 1),
        closings=("Yours, {other_name}", "With warm wishes, {other_name}"),
    ),
    Family(
        name="plan",
        weight=0.09,
        prompts=(
            ("Make a plan for {activity}", 0),
            ("Plan a weekend of {activity}", -3),
            ("Draw up a training schedule for a new {person}", 3),
            ("Organise a course on {activity}", 2),
            ("How should I spend my holiday {activity}?", 0),
            ("Suggest a timetable for {activity}", -1),
        ),
        openings=("This plan for {activity} takes {n} days.", "A plan of {n} days for a {person}."),
        unit="Day",
        tone=phrases.PLAN,
        base=6,
        low=1,
        high=12,
        gain=1.1,
        sentences=(1, 1, 2),
    ),
    Family(
        name="steps",
        weight=0.08,
        prompts=(
            ("How do I {act}?", -1),
            ("Give me instructions to {act}", 0),
            ("Show me step by step how a {person} would {act}", 2),
            ("What is the quickest way to {act}?", -3),
            ("Write a manual for {activity}", 4),
            ("I want to start {activity}, what do I do?", 1),
        ),
        openings=("You can do it in {n} steps.", "There are {n} steps if you want to {act}."),
        unit="Step",
        tone=phrases.STEP,
        base=5.5,
        low=1,
        high=12,
        gain=0.9,
        sentences=(1,),
    ),
    Family(
        name="dialogue",
        weight=0.07,
        prompts=(
            ("Write a dialogue between two people who like {activity}", 0),
            ("Write a conversation between {name} and a {person}", 1),
            ("Imagine a quarrel about the {part}", -2),
            ("Write a scene of a play {place}", 3),
            ("Write an interview with a {person}", 4),
            ("Two friends chat about {activity}. Write it down", -1),
        ),
        openings=("{name} and {other_name} talk in {n} lines.", "A talk of {n} lines between {name} and {other_name}."),
        unit="Line",
        tone=phrases.TALK,
        base=7,
        low=2,
        high=12,
        gain=0.9,
        sentences=(1, 1, 2),
    ),
    Family(
        name="compare",
        weight=0.07,
        prompts=(
            ("Compare {activity} with {other_activity}", 1),
            ("What is the difference between {activity} and {other_activity}?", -1),
            ("Which is better, {activity} or {other_activity}?", -2),
            ("Weigh {activity} against {other_activity} with all pros and cons", 3),
            ("List what {activity} and {other_activity} have in common", 0),
        ),
        openings=("The two have {n} differences.", "I compare the two by {n} differences."),
        unit="Difference",
        tone=phrases.CONTRAST,
        base=4,
        low=1,
        high=9,
        gain=0.7,
        sentences=(1, 1, 2),
        closings=("So choose what suits you.", "In the end both are worth a try."),
    ),
    Family(
        name="poem",
        weight=0.06,
        prompts=(
            ("Write a poem about {activity}", 0),
            ("Compose a song for a {person}", 2),
            ("Write a little rhyme about the {part}", -2),
            ("Write a ballad about a {trait} {person}", 3),
            ("Praise the {part} in verse", -1),
        ),
        openings=("A poem of {n} verses.", "{n} verses for a {person}."),
        unit="Verse",
        tone=phrases.VERSE,
        base=3,
        low=1,
        high=8,
        gain=0.6,
        sentences=(4,),
        separator="\n\n",
    ),
    Family(
        name="fact",
        weight=0.11,
        prompts=(
            ("What is {activity}?", 0),
            ("Define {activity} in plain words", -1),
            ("Who uses the {part}?", -1),
            ("Tell me something about the {part} of a {person}", 1),
            ("What does a {person} do {place}?", 0),
            ("Give me a fact about {activity}", -1),
        ),
        openings=("In brief, {n} facts: ", "You asked; {n} facts: "),
        unit="",
        tone=phrases.FACT,
        base=1.8,
        low=1,
        high=5,
        gain=0.4,
        sentences=(1,),
    ),
    Family(
        name="yesno",
        weight=0.07,
        prompts=(
            ("Is {activity} {trait}?", 0),
            ("Can a {person} {act} {place}?", -1),
            ("Is it true that the {part} is needed for {activity}?", 1),
            ("Should I {act} today?", 0),
            ("Would you recommend {activity}?", 2),
        ),
        openings=("Yes, for {n} reasons: ", "No, for {n} reasons: "),
        unit="",
        tone=phrases.REASON,
        base=1.5,
        low=1,
        high=5,
        gain=0.4,
        sentences=(1,),
    ),
    Family(
        name="names",
        weight=0.06,
        prompts=(
            ("Suggest a name for a club of people {activity}", -1),
            ("Think of titles for a book about {activity}", 2),
            ("What could I call my shop {place}?", 0),
            ("Find a slogan for a {trait} {person}", -1),
            ("Suggest nicknames for a {person}", 2),
        ),
        openings=("{n} ideas: ", "My {n} ideas: "),
        unit="",
        tone=("The {trait} {part}", "{name} and the {part}", "{trait} and {other_trait}", "The {part} {place}"),
        base=2,
        low=1,
        high=6,
        gain=0.4,
        sentences=(1,),
        separator="; ",
    ),
)

FAMILY_BY_NAME = {family.name: family for family in FAMILIES}


def plan_mode(combination: Combination) -> int:
    """The most likely number of parts; a function of the combination alone."""
    family = combination.family
    shift = topic_shift(combination.topic.index) + pair_shift(family.name, combination.topic.index)
    shift += MODIFIERS[combination.modifier_index][1]
    template_shift = family.prompts[combination.template_index][1]
    return clip(family.base + template_shift * min(1.0, family.gain) + family.gain * shift, family.low, family.high)


def draw_plan(combination: Combination, rng: random.Random) -> int:
    """The number of parts of one answer."""
    return draw_around(plan_mode(combination), combination.family.low, combination.family.high, rng)


def write_answer(
    family: Family, slots: dict[str, str], num_parts: int, topic: Topic, is_dealt: bool, rng: random.Random
) -> str:
    """An answer of exactly `num_parts` parts; names stay the same throughout."""
    opening = singular(rng.choice(family.openings).format(n=num_parts, **slots))
    names = {"name": slots["name"], "other_name": slots["other_name"]}
    sentences = (DealtSentences if is_dealt else FreeSentences)(family.tone, topic, names, rng)
    parts = [write_part(family, slots, sentences, index + 1, num_parts, rng) for index in range(num_parts)]
    if not family.unit:
        return opening + (family.separator if family.separator != "\n" else " ").join(parts)
    body = [opening, *parts]
    if family.closings:
        body.append(rng.choice(family.closings).format(**slots))
    return family.separator.join(body)


def write_part(
    family: Family, slots: dict[str, str], sentences: Sentences, number: int, num_parts: int, rng: random.Random
) -> str:
    """One part with its marker; short families mark with a bare "(i)"."""
    text = ("\n" if family.name == "poem" else " ").join(sentences.take(rng.choice(family.sentences)))
    if not family.unit:
        return f"({number}) {text}"
    speaker = f", {(slots['name'], slots['other_name'])[number % 2]}" if family.name == "dialogue" else ""
    return f"{family.unit} {number} of {num_parts}{speaker}: {text}"


def singular(opening: str) -> str:
    """Turns "1 tips" into "1 tip"; other counts stay."""
    return re.sub(r"\b1 (\w+)s\b", r"1 \1", opening)
