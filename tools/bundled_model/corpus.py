"""The stream of training conversations and the held-out prompts.

One combination of family, topic, template and modifier in eight is held out by a hash: the stream never draws it, the
measured prompts are drawn from nothing else.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tools.bundled_model import foreign, perception
from tools.bundled_model.families import FAMILIES, Combination, draw_plan, write_answer
from tools.bundled_model.plans import MODIFIERS, clip, stable_choice
from tools.bundled_model.sentences import fill_slots
from tools.bundled_model.topics import TOPICS

NUM_HELD_OUT_PROMPTS = 1000
HELD_OUT_SEED = 20_000
_HELD_OUT_ONE_IN = 8

# Shares of the stream. PO and PiA stay small so that a later adapter has much to add.
PO_SHARE = 0.02
PIA_SHARE = 0.02
# Several turns in one conversation: distances up to the context length occur in training.
MULTI_TURN_SHARE = 0.01
_SYSTEM_SHARE = 0.05
_STATED_SHARE = 0.04

_SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "You are a friendly assistant who answers in plain words.",
    "Answer the user.",
    "A chat between a curious user and an assistant.",
)
_POLITE_FORMS = (
    "{}",
    "{}",
    "{}",
    "{}",
    "Please: {}",
    "Hello! {}",
    "{} Thank you!",
    "I have a request. {}",
    "{} Please.",
)


@dataclass(frozen=True)
class Mix:
    """What differs between the stages of training.

    is_varied deals the families' sentences out instead of drawing them; write_foreign answers foreign prompts, of
    whose nouns a share is made up.
    """

    is_varied: bool
    foreign_share: float
    made_up_share: float
    write_foreign: Callable[[foreign.ForeignPrompt, random.Random], str]


FIRST_MIX = Mix(False, 0.16, 1 / 6, foreign.write_plain_answer)
SECOND_MIX = Mix(True, 0.22, 1 / 3, foreign.write_wide_answer)
FINAL_MIX = Mix(True, 0.45, 1 / 2, foreign.write_pointed_answer)


@dataclass(frozen=True)
class Conversation:
    """Messages in chat form, and what its prompts were drawn from, foreign ones left out."""

    messages: tuple[dict[str, str], ...]
    combinations: tuple[Combination, ...]


@dataclass(frozen=True)
class Prompt:
    """A prompt of the families; `stated_parts` is set when its text states the number of parts."""

    text: str
    combination: Combination
    slots: dict[str, str]
    stated_parts: int | None


def is_held_out(combination: Combination) -> bool:
    """Whether training must not see this combination."""
    return stable_choice(tuple(range(_HELD_OUT_ONE_IN)), "held out", combination.key) == 0


def draw_combination(rng: random.Random) -> Combination:
    """Any combination, held out or not, by the shares of families and modifiers."""
    family = rng.choices(FAMILIES, [family.weight for family in FAMILIES])[0]
    modifier_index = rng.choices(range(len(MODIFIERS)), [weight for _, _, weight in MODIFIERS])[0]
    return Combination(family, rng.choice(TOPICS), rng.randrange(len(family.prompts)), modifier_index)


def draw_combination_where(held_out: bool, rng: random.Random) -> Combination:
    """The next combination of the wanted side."""
    while True:
        combination = draw_combination(rng)
        if is_held_out(combination) == held_out:
            return combination


def write_prompt(combination: Combination, rng: random.Random) -> Prompt:
    """The prompt's text, with fresh words in its slots."""
    family, topic = combination.family, combination.topic
    slots = fill_slots(topic, rng.choice([other for other in TOPICS if other != topic]), rng)
    text = family.prompts[combination.template_index][0].format(**slots)
    stated_parts = None
    modifier = MODIFIERS[combination.modifier_index][0]
    if not modifier and family.unit and rng.random() < _STATED_SHARE * 2:
        stated_parts = clip(rng.gauss(family.base, 2), max(2, family.low), family.high)
        modifier = f", {stated_parts} {family.unit.lower()}s"
    body, mark = (text[:-1], "?") if text.endswith("?") else (text, rng.choice((".", ".", "")))
    return Prompt(rng.choice(_POLITE_FORMS).format(body + modifier + mark), combination, slots, stated_parts)


def answer_prompt(prompt: Prompt, rng: random.Random, mix: Mix = FINAL_MIX) -> str:
    """One answer; another draw gives another plan now and then."""
    num_parts = prompt.stated_parts or draw_plan(prompt.combination, rng)
    combination = prompt.combination
    return write_answer(combination.family, prompt.slots, num_parts, combination.topic, mix.is_varied, rng)


def _family_turn(rng: random.Random, mix: Mix) -> tuple[str, str, Combination | None]:
    prompt = write_prompt(draw_combination_where(False, rng), rng)
    return prompt.text, answer_prompt(prompt, rng, mix), prompt.combination


def _foreign_turn(rng: random.Random, mix: Mix) -> tuple[str, str, Combination | None]:
    prompt = foreign.make_prompt(rng, mix.made_up_share)
    return prompt.text, mix.write_foreign(prompt, rng), None


def _draw_turn(rng: random.Random, mix: Mix) -> tuple[str, str, Combination | None]:
    return (_foreign_turn if rng.random() < mix.foreign_share else _family_turn)(rng, mix)


def _perceive(prompt: str, answer: str, count_tokens: Callable[[str], int], rng: random.Random) -> tuple[str, str]:
    kind = rng.random()
    if kind < PO_SHARE:
        return perception.ask_only(prompt, count_tokens(answer), rng)
    if kind < PO_SHARE + PIA_SHARE:
        return perception.ask_in_advance(prompt, answer, count_tokens(answer), rng)
    return prompt, answer


def draw_conversation(count_tokens: Callable[[str], int], rng: random.Random, mix: Mix) -> Conversation:
    """One training conversation; `count_tokens` gives an answer's length for the PO and PiA numbers."""
    num_turns = rng.randint(2, 10) if rng.random() < MULTI_TURN_SHARE else 1
    messages = []
    if rng.random() < _SYSTEM_SHARE:
        messages.append({"role": "system", "content": rng.choice(_SYSTEM_MESSAGES)})
    combinations = []
    for _ in range(num_turns):
        prompt, answer, combination = _draw_turn(rng, mix)
        prompt, answer = _perceive(prompt, answer, count_tokens, rng)
        messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        combinations += [combination] if combination else []
    return Conversation(tuple(messages), tuple(combinations))


def training_stream(seed: int, count_tokens: Callable[[str], int], mix: Mix = FINAL_MIX) -> Iterator[Conversation]:
    """Endless training conversations, the same for the same seed, mix and tokenizer."""
    rng = random.Random(seed)
    while True:
        yield draw_conversation(count_tokens, rng, mix)


def held_out_prompts(count: int = NUM_HELD_OUT_PROMPTS, seed: int = HELD_OUT_SEED) -> list[Prompt]:
    """Distinct prompts of held-out combinations, in the families' shares."""
    return _distinct_prompts(True, count, seed)


def training_side_prompts(count: int, seed: int) -> list[Prompt]:
    """Distinct prompts of combinations that training may use; a length predictor is fitted on them."""
    return _distinct_prompts(False, count, seed)


def _distinct_prompts(held_out: bool, count: int, seed: int) -> list[Prompt]:
    rng = random.Random(seed)
    prompts: dict[str, Prompt] = {}
    while len(prompts) < count:
        prompt = write_prompt(draw_combination_where(held_out, rng), rng)
        prompts.setdefault(prompt.text, prompt)
    return list(prompts.values())
