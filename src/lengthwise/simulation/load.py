"""How much of what an engine can do a log asks of it."""

from __future__ import annotations

import numpy as np

from lengthwise.errors import UsageError
from lengthwise.simulation.machine import EngineModel
from lengthwise.simulation.workload import Workload


def engine_s_a_request(workload: Workload, engine: EngineModel) -> float:
    """Seconds of the engine that a request takes, its share of full steps and its reading: one over the requests a
    second that can be answered. Where memory is short, full is what it holds."""
    answers, prompts = workload.answer_tokens.astype(float), workload.prompt_tokens.astype(float)
    tokens_a_row = float((answers * (prompts + answers / 2)).sum() / answers.sum())  # of a row in a step, on average
    rows = max(1.0, min(engine.slots, engine.kv_tokens / tokens_a_row))
    cost = engine.cost
    step_s = cost.step_fixed_s + rows * (cost.step_row_s + tokens_a_row * cost.step_context_s)
    read_s = prompts.mean() * cost.read_token_s + (cost.read_fixed_s if engine.chunk_tokens is None else 0.0)
    return float(answers.mean() * step_s / rows + read_s)


def load_of(workload: Workload, engine: EngineModel) -> float:
    """Requests a second over those that can be answered: beyond 1 the queue grows without end; inf for all at once."""
    span_s = float(workload.arrival_s[-1] - workload.arrival_s[0])
    if len(workload) < 2 or span_s <= 0:
        return np.inf
    return (len(workload) - 1) / span_s * engine_s_a_request(workload, engine)


def at_load(workload: Workload, load: float, engine: EngineModel) -> Workload:
    """The same arrivals, faster or slower. Raises UsageError where they can't be: all at once, or no load."""
    now = load_of(workload, engine)
    if not 0 < load < np.inf:
        raise UsageError(f"The load is {load}; it must be above 0: 1 is all that the engine can do.")
    if not np.isfinite(now):
        raise UsageError("All requests come at once, so there is no load to set; give a log with times, or --arrivals.")
    return workload.faster(load / now)
