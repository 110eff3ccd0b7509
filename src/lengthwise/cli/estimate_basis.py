"""What an estimate rests on: which model is here, what predicts its lengths, what a step of it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lengthwise.cli.backbones import BackboneChoice
from lengthwise.cli.console import quiet_transformers, say
from lengthwise.cli.engines import EngineKind
from lengthwise.costs import StepCost
from lengthwise.engines.transformers import ModelOptions, RunOptions
from lengthwise.errors import PredictorError, UsageError
from lengthwise.jobs.values import MAX_COUNT
from lengthwise.protocols import LengthPredictor
from lengthwise.types import ErrorInfo, Prepared, Request

if TYPE_CHECKING:
    from lengthwise.engines.transformers.at_hand import ModelAtHand
    from lengthwise.learning.estimating.jobs import JobOutlook
    from lengthwise.learning.estimating.timing import Seconds, StepTimes
    from lengthwise.learning.estimating.totals import Interval


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says of model and machine."""

    engine: EngineKind
    model: ModelOptions
    predictor: str
    max_tokens: int
    schedule: str
    batch_size: int | None
    step_cost: tuple[float, float] | None
    tokens_per_second: float | None
    concurrency: int | None
    may_probe: bool

    def __post_init__(self) -> None:
        if not 1 <= self.max_tokens <= MAX_COUNT:
            raise UsageError(f"max_tokens is {self.max_tokens}; it must be from 1 to {MAX_COUNT}.")
        RunOptions(max_tokens=self.max_tokens, batch_size=self.batch_size)
        rate = self.tokens_per_second
        if rate is not None and not 0 < rate < math.inf:
            raise UsageError(f"tokens_per_second is {rate}; it must be above 0.")
        if self.concurrency is not None and self.concurrency < 1:
            raise UsageError(f"concurrency is {self.concurrency}; it must be 1 or more.")
        if self.step_cost is not None and self.batch_size is None:
            raise UsageError("--step-cost needs to know how many rows run at once; add --batch-size.")
        if self.step_cost is not None and rate is not None:
            raise UsageError("--step-cost and --tokens-per-second say the same thing in two ways; leave one out.")

    @property
    def is_served(self) -> bool:
        return self.engine == "openai"


def model_at_hand(asked: Asked) -> ModelAtHand | None:
    """The model, where it is on this machine: nothing is fetched for an estimate."""
    if asked.is_served:
        return None
    quiet_transformers()
    from lengthwise.engines.transformers.at_hand import find_at_hand

    found = find_at_hand(asked.model)
    if found is None:
        say(f"{asked.model.model} is no folder, and not in the hub's cache; nothing is fetched for an estimate.")
    return found


def choose_predictor(asked: Asked, here: ModelAtHand | None) -> LengthPredictor:
    """As asked for. Raises PredictorError where it can't be loaded, or learned from another model than is named."""
    from lengthwise.predictors import saved
    from lengthwise.predictors.unknown import UnknownPredictor

    name = asked.predictor
    if name == "auto":
        return UnknownPredictor() if here is None else saved.default_predictor(here.identity)
    if saved.needs_backbone(name):
        if here is None:
            raise PredictorError(
                f"The predictor {name} asks a language model, and for an estimate nothing is sent to servers and "
                "nothing fetched. Take one that reads text, or --model with a model that is here."
            )
        return saved.load_predictor(name, BackboneChoice(asked.model.model, asked.model.chat_template).open())
    found = saved.load_predictor(name)
    is_named = asked.model.model is not None
    if is_named and here is not None and found.model not in (None, here.identity):
        raise PredictorError(
            f"The predictor {name} learned from {found.model}, the model is {here.identity}: its lengths would not "
            "hold. Leave --model out to see them all the same."
        )
    if is_named and here is None and found.model is not None:
        say(f"The predictor learned from {found.model}; that {asked.model.model} is this model is taken for granted.")
    return found


def prepared(requests: Sequence[Request], asked: Asked, here: ModelAtHand | None) -> list[Prepared | ErrorInfo]:
    """By the model's own tokenizer, else by characters."""
    from lengthwise.learning.data_catalogue import CHARACTERS_A_TOKEN

    if here is not None:
        return here.prepare(requests, asked.max_tokens)
    return [
        Prepared(math.ceil(len(request.text) / CHARACTERS_A_TOKEN), request.max_tokens or asked.max_tokens)
        for request in requests
    ]


# -- time ------------------------------------------------------------------------------------------------------


def seconds_of(
    asked: Asked, here: ModelAtHand | None, outlook: JobOutlook, interval: Interval
) -> tuple[Seconds | None, str]:
    """The job's time and where it comes from; or None, and why nothing is known of it."""
    from lengthwise.learning.estimating.timing import seconds_by_rate, seconds_by_steps

    if outlook.num_unknown:
        return None, "lengths are not known"
    tokens = outlook.totals.tokens
    if asked.tokens_per_second is not None:
        rate = asked.tokens_per_second * (asked.concurrency or 1)
        return seconds_by_rate(tokens, interval, rate), f"{rate:,.0f} tokens/s, as given"
    if asked.is_served and asked.step_cost is None:
        return None, "how fast the server is, is not known; give --tokens-per-second, of a former run for instance"
    steps, told = _steps(asked, here)
    if steps is None:
        return None, told
    return seconds_by_steps(outlook.drawn, outlook.prompt_tokens, tokens, interval, steps, asked.schedule), told


def _steps(asked: Asked, here: ModelAtHand | None) -> tuple[StepTimes | None, str]:
    """What a decode step costs, and who says so: the command line, a kept measurement, or one that is made now."""
    from lengthwise.learning.estimating.timing import StepTimes

    if asked.step_cost is not None and asked.batch_size is not None:
        return StepTimes(
            _given(*asked.step_cost), asked.batch_size
        ), f"{asked.batch_size} rows at the cost that was given"
    if here is None:
        return None, "the model is not here to be measured; give --step-cost with --batch-size"
    kept = here.kept_probe()
    if kept is not None:
        rows = asked.batch_size or kept.max_running(kept.samples[-1][0])
        return StepTimes(kept.step_cost, rows), f"{rows} rows, measured on this device before"
    if not asked.may_probe:
        return None, "this model was not measured on this device yet; leave --no-probe out"
    return _measured(asked, here)


def _measured(asked: Asked, here: ModelAtHand) -> tuple[StepTimes | None, str]:
    """Load the model and measure it, which is kept for its run."""
    from lengthwise.engines.transformers import open_engine
    from lengthwise.learning.estimating.timing import StepTimes

    engine = open_engine(here.options, RunOptions(max_tokens=asked.max_tokens))
    cost, able = engine.step_cost, engine.capabilities
    engine.close()
    if cost is None:
        return None, "this model runs by model.generate, whose steps are not measured"
    rows = asked.batch_size or able.max_running
    return StepTimes(cost, rows, able.kv_tokens), f"{rows} rows, measured on this device"


def _given(fixed_s: float, row_s: float) -> StepCost:
    """Nothing is said of reading: a token of a prompt is taken to cost what one more row costs in a step."""
    return StepCost(fixed_s, row_s, read_token_s=row_s)
