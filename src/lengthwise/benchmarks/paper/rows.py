"""The rows of the tables: what is known of lengths, and how requests are scheduled by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from lengthwise.benchmarks.paper.ways import BATCH_SIZE, PAPER_WAY, REFILL, SORTED_ONLY, VANILLA, Way
from lengthwise.errors import UsageError
from lengthwise.scheduling.named import PAPER

GROUP_SIZES = (16, 32, 64, 128, 256, 512, 1024)
BATCH_SIZES = (8, 16, 32, 64)
WITH_MODEL = ("pooling", "len", "po", "lora")  # kinds that ask the language model that answers, or look into it


@dataclass(frozen=True)
class Known:
    """What is known of lengths. `kind`: `none`; `oracle`, the true ones; `text-own`, a text predictor that learned from
    other prompts' answers of the same model; or a kind of predictor. `target`: what a length is (`Target`)."""

    kind: str
    target: str = "answer"

    @property
    def needs_model(self) -> bool:
        return self.kind in WITH_MODEL


NOTHING = Known("none")


@dataclass(frozen=True)
class Row:
    """A line of a table. `name` is unique in its table."""

    table: str
    name: str
    title: str
    known: Known
    way: Way

    def to_json(self) -> dict[str, Any]:
        """What its figures depend on."""
        return {"known": asdict(self.known), "way": self.way.to_json()}


BASE = Row("predictors", "vanilla", f"vanilla: batches of {BATCH_SIZE}, arrival order", NOTHING, VANILLA)

_PREDICTORS = (
    BASE,
    Row("predictors", "ground-truth", "ground truth: the longest of the samples", Known("oracle", "max"), PAPER_WAY),
    Row("predictors", "exact", "the very length of the answer", Known("oracle"), PAPER_WAY),
    Row("predictors", "pooling", "pooling + MLP", Known("pooling", "max"), PAPER_WAY),
    Row("predictors", "len", "[LEN] token", Known("len", "max"), PAPER_WAY),
    Row("predictors", "po", "Perception Only, neither VBS nor FCR", Known("po"), SORTED_ONLY),
    Row("predictors", "lora-mean", "instruction tuning, mean", Known("lora", "mean"), PAPER_WAY),
    Row("predictors", "lora-max", "instruction tuning, max", Known("lora", "max"), PAPER_WAY),
    Row("predictors", "text-mean", "text predictor, mean", Known("text", "mean"), PAPER_WAY),
    Row("predictors", "text-max", "text predictor, max", Known("text", "max"), PAPER_WAY),
    Row("predictors", "encoder-max", "encoder, max", Known("encoder", "max"), PAPER_WAY),
    Row("predictors", "refill", f"{BATCH_SIZE} rows, refilled as they end, no lengths", NOTHING, REFILL),
)


def paper_rows(by: Known) -> list[Row]:
    """The predictors, and the ablations of the scheduling by what `by` knows."""
    return [*_PREDICTORS, *_ablation(by), *_group_sizes(by), *_batch_sizes(by)]


def _ablation(by: Known) -> Iterator[Row]:
    for binning, fcr, vbs in product((False, True), repeat=3):
        parts = [name for name, is_on in (("binning", binning), ("fcr", fcr), ("vbs", vbs)) if is_on]
        name = "+".join(parts) or "none"
        title = " + ".join(part if part == "binning" else part.upper() for part in parts) or "sorted, none of the three"
        yield Row("ablation", name, title, by, replace(PAPER_WAY, binning=binning, fcr=fcr, vbs=vbs))


def _group_sizes(by: Known) -> Iterator[Row]:
    for size in GROUP_SIZES:
        yield Row("group-size", f"group-{size}", f"groups of {size:,}", by, replace(PAPER_WAY, group_size=size))


def _batch_sizes(by: Known) -> Iterator[Row]:
    for size in BATCH_SIZES:
        yield Row("batch-size", f"vanilla-{size}", f"vanilla, {size} rows", NOTHING, replace(VANILLA, batch_size=size))
        way = replace(PAPER_WAY, vbs=False, batch_size=size)
        yield Row("batch-size", f"sequence-{size}", f"binning + FCR, {size} rows", by, way)


def other_rows() -> list[Row]:
    """Of each set of another model's lengths, one answer a prompt: for one answer the paper's number stands higher in
    the estimate than the median."""
    own = Row(
        "predictors",
        "text-own",
        "text predictor, its own answers to the other prompts",
        Known("text-own"),
        replace(PAPER_WAY, quantile=PAPER.order_quantile),
    )
    text = Row("predictors", "text-max", "text predictor, Vicuna's answers", Known("text", "max"), PAPER_WAY)
    exact = Row("predictors", "ground-truth", "ground truth", Known("oracle"), PAPER_WAY)
    refill = next(row for row in _PREDICTORS if row.name == "refill")
    return [BASE, exact, text, own, refill]


def chosen(rows: Sequence[Row], names: Sequence[str] | None) -> list[Row]:
    """Those whose table or name is asked for, and always the baseline; all without `names`."""
    if names is None:
        return list(rows)
    return [row for row in rows if row == BASE or row.table in names or row.name in names]


def check_names(rows: Sequence[Row], names: Sequence[str]) -> None:
    """Raises UsageError on a name that no row and no table has."""
    tables = list(dict.fromkeys(row.table for row in rows))
    known = [*tables, *dict.fromkeys(row.name for row in rows)]
    for name in names:
        if name not in known:
            raise UsageError(f"There is no row {name!r}; choose tables or rows of {', '.join(known)}.")
