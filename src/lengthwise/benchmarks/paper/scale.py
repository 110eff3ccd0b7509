"""How much is measured: all, or what a few minutes allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lengthwise.benchmarks.paper.rows import Row


@dataclass(frozen=True)
class Scale:
    """`num_draws`: samples of prompts a seed, of recorded lengths. `num_prompts`: of the model's prompts, to learn from
    and to schedule together; None: all. `left_out` says it for people, `left_out_rows` by part and table, name or
    kind."""

    seeds: str = "0,1,2"
    num_draws: int = 20
    num_prompts: int | None = None
    temperatures: tuple[float, ...] = (0.0, 0.3, 0.5, 0.7)
    left_out: tuple[str, ...] = ()
    left_out_rows: tuple[tuple[str, str], ...] = ()

    def kept(self, part: str, rows: Sequence[Row]) -> list[Row]:
        """What is measured of a part's rows."""
        names = {name for of_part, name in self.left_out_rows if of_part == part}
        return [row for row in rows if not {row.table, row.name, row.known.kind} & names]


FULL = Scale()
QUICK = Scale(
    seeds="0",
    num_draws=10,
    num_prompts=200,
    temperatures=(0.0, 0.7),
    left_out=(
        "two of three seeds, and half of the samples of each",
        "the encoder, which trains for half an hour",
        "of the other models' sets the predictor that learns from each set's own answers",
        "of the model that is run all prompts but 200, two of four temperatures, and the ablations",
    ),
    left_out_rows=(
        ("recorded", "encoder"),
        ("others", "text-own"),
        ("model", "ablation"),
        ("model", "group-size"),
        ("model", "batch-size"),
    ),
)
