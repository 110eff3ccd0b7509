"""Rows in order of arrival, kept in the pieces in which they came."""

from __future__ import annotations

from collections import deque
from collections.abc import Set
from typing import Generic, TypeVar

from lengthwise.scheduling.rows import Columns

Rows = TypeVar("Rows", bound=Columns)


class RowQueue(Generic[Rows]):
    """First in, first out. Adding and taking cost what is added and taken, however much waits."""

    def __init__(self, empty: Rows) -> None:
        """`empty`: no rows, of the kind that is kept."""
        self._empty = empty
        self._pieces: deque[Rows] = deque()
        self._num = 0

    def __len__(self) -> int:
        return self._num

    def append(self, rows: Rows) -> None:
        if len(rows):
            self._pieces.append(rows)
            self._num += len(rows)

    def first(self, max_rows: int) -> Rows:
        """The first `max_rows` (1 or more), or as many as stand together: at least one, if there is any."""
        return self._pieces[0][:max_rows] if self._pieces else self._empty

    def take(self, max_rows: int | None) -> Rows:
        """The first `max_rows` (None: all), or as many as there are."""
        wanted = self._num if max_rows is None else min(max_rows, self._num)
        taken: list[Rows] = []
        while wanted:
            piece = self._pieces.popleft()
            if len(piece) > wanted:
                self._pieces.appendleft(piece[wanted:])
                piece = piece[:wanted]
            taken.append(piece)
            wanted -= len(piece)
            self._num -= len(piece)
        return type(taken[0]).concatenate(taken) if taken else self._empty

    def drop(self, ids: Set[str]) -> None:
        """Forget rows by id; ids that are not here are passed over."""
        kept = [piece.without(ids) for piece in self._pieces]
        self._pieces = deque(piece for piece in kept if len(piece))
        self._num = sum(map(len, self._pieces))
