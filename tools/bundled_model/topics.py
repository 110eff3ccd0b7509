"""The sixty topics: every noun, verb phrase and adjective that the families' text is made of.

topics.txt has one line a topic, six fields: activity | the person who does it | where | parts | acts | traits. Parts
are nouns that "the" can stand before, acts are verb phrases after "to".
"""

from dataclasses import dataclass
from pathlib import Path

_TABLE_PATH = Path(__file__).with_name("topics.txt")


@dataclass(frozen=True)
class Topic:
    """One row of the table; `index` is its place, from which topic-dependent modes are derived."""

    index: int
    activity: str
    person: str
    place: str
    parts: tuple[str, ...]
    acts: tuple[str, ...]
    traits: tuple[str, ...]


def _split(field: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in field.split(","))


def _parse(index: int, line: str) -> Topic:
    activity, person, place, parts, acts, traits = (field.strip() for field in line.split("|"))
    return Topic(index, activity, person, place, _split(parts), _split(acts), _split(traits))


TOPICS = tuple(_parse(index, line) for index, line in enumerate(_TABLE_PATH.read_text(encoding="utf-8").splitlines()))

# fmt: off
NAMES = (
    "Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Hugo", "Irene", "Jonas",
    "Karin", "Leo", "Marta", "Nils", "Olga", "Peter", "Rosa", "Simon", "Tara", "Victor",
)
# fmt: on
