"""How errors show what was wrong."""

from __future__ import annotations

from typing import Any

from lengthwise.errors import MAX_SHOWN_CHARS, shown


def test_a_value_is_shown_as_it_is_written_in_python() -> None:
    """Whole where it is short."""
    assert [shown(value) for value in ("a\n", None, 0.5, {"a": [1]})] == ["'a\\n'", "None", "0.5", "{'a': [1]}"]
    just_short_enough = "x" * (MAX_SHOWN_CHARS - 2)
    assert shown(just_short_enough) == repr(just_short_enough)


def test_a_long_value_is_shown_by_its_beginning() -> None:
    """And it is seen that there was more."""
    assert shown("x" * (MAX_SHOWN_CHARS - 1)) == "'" + "x" * (MAX_SHOWN_CHARS - 1) + "…"
    assert len(shown(["y" * 10**6])) == MAX_SHOWN_CHARS + 1


def test_a_value_that_can_not_be_written_is_shown_by_its_type() -> None:
    """Lists in lists without number, whole numbers of too many digits: an error message is no second error."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep) == "of type list"
    assert shown(10**5000) == "of type int"
