"""Questions about the length of an answer, with rough numbers.

Perception Only (PO) asks for the number alone, Perception in Advance (PiA) for the number in the first line and then
the answer. The numbers are off by a factor of about 1.5 on purpose: a later adapter shall have much to learn.
"""

import math
import random

PO_FORMS = (
    "How many tokens would your answer to the following have? Say only the number.\n{prompt}",
    "{prompt}\n\nDo not answer. Only estimate how many tokens the answer takes.",
    "Guess the length in tokens of your reply to this request and print nothing but the number.\n\n{prompt}",
    "Without answering, predict the number of tokens of the response:\n{prompt}",
)
PIA_FORMS = (
    "{prompt}\n\nBefore you answer, print the estimated number of tokens in the first line.",
    "Start with a line that holds the number of tokens you expect to write, then answer.\n{prompt}",
    "First estimate the length of your answer in tokens on a line of its own. Then answer:\n\n{prompt}",
)

# Standard deviation of the log of the factor by which a number is off.
ROUGHNESS = 0.45


def rough_number(num_tokens: int, rng: random.Random) -> int:
    """The count, blurred and rounded to tens, at least 10."""
    return max(10, 10 * round(num_tokens * math.exp(rng.gauss(0, ROUGHNESS)) / 10))


def ask_only(prompt: str, num_tokens: int, rng: random.Random) -> tuple[str, str]:
    """A PO pair of prompt and answer."""
    return rng.choice(PO_FORMS).format(prompt=prompt), str(rough_number(num_tokens, rng))


def ask_in_advance(prompt: str, answer: str, num_tokens: int, rng: random.Random) -> tuple[str, str]:
    """A PiA pair of prompt and answer."""
    return rng.choice(PIA_FORMS).format(prompt=prompt), f"{rough_number(num_tokens, rng)}\n{answer}"
