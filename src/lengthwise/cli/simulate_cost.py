"""Which cost of steps `lengthwise simulate` counts with, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lengthwise.cli.console import quiet_transformers
from lengthwise.costs import StepCost
from lengthwise.errors import UsageError

ENGINE_PANEL = "Engine"

CostFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="JSON with step_fixed_s, step_row_s, step_context_s, read_fixed_s, read_token_s; without it, a model "
        "of 7B parameters with prompts that cost nothing.",
        rich_help_panel=ENGINE_PANEL,
    ),
]
ProbedModel = Annotated[
    str | None,
    typer.Option(
        metavar="bundled|DIR_OR_HUB_ID",
        help="Instead of --cost: a model whose steps are measured on this machine (as `run` does, and keeps it).",
        rich_help_panel=ENGINE_PANEL,
    ),
]

MAX_ERROR = 0.3  # of a measurement, beyond which it is warned of: a choice


@dataclass(frozen=True)
class CostBasis:
    """A cost, and in words where it comes from."""

    cost: StepCost
    source: str

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of it, a sentence each."""
        if self.cost.relative_error <= MAX_ERROR:
            return ()
        return ("Such a measurement is rough: measure again when nothing else runs.",)


def cost_basis(file: Path | None, model: str | None) -> CostBasis:
    """The cost in a file, the one measured of a model on this machine, or that of the paper's model. Raises UsageError
    where both are given or the model's steps can't be measured, InputError on the file, ModelError on the model."""
    if file is not None and model is not None:
        raise UsageError(
            f"--cost {file} and --probe {model} both say what a step costs: a file, and a measurement of a model here. "
            "Give one."
        )
    if file is not None:
        return CostBasis(StepCost.read(file), str(file))
    if model is not None:
        return _measured(model)
    return CostBasis(StepCost(), "what a model of 7B parameters takes by the paper's throughput")


def _measured(model: str) -> CostBasis:
    """The measurement that `run` and `estimate` make and keep, made now where there is none."""
    quiet_transformers()
    from lengthwise.engines.transformers import ModelOptions, RunOptions, open_engine
    from lengthwise.engines.transformers.at_hand import find_at_hand

    options = ModelOptions(model)
    here = find_at_hand(options)
    kept = None if here is None else here.kept_probe()
    if kept is not None:
        return CostBasis(kept.step_cost, f"{model}, measured on this machine before")
    engine = open_engine(options if here is None else here.options, RunOptions())
    cost = engine.step_cost
    engine.close()
    if cost is None:
        raise UsageError(
            f"{model} runs by model.generate, whose steps are not measured; give its cost as a file (--cost)."
        )
    return CostBasis(cost, f"{model}, measured on this machine")
