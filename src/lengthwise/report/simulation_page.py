"""What a simulated log came to, told to somebody who has never heard of slots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lengthwise.report.figure import Figure
from lengthwise.report.figures import Traces
from lengthwise.report.figures.latencies import latencies
from lengthwise.report.figures.places import places
from lengthwise.report.figures.policies import policies
from lengthwise.report.figures.slots import slots
from lengthwise.report.figures.sweeps import sweeps
from lengthwise.report.figures.waits import waits
from lengthwise.report.numbers import percent, short, spoken_s
from lengthwise.report.page import Page, Tile
from lengthwise.report.pays import NUM_SEEDS, SPARING, Told, where_it_pays
from lengthwise.report.prefix_cache import prefix_cache_sentence
from lengthwise.report.traces import Trace, traced
from lengthwise.simulation.policies import BASE, policy
from lengthwise.simulation.study import Study, guess_exactly

FEW = 0.05  # of the latency spent waiting: nothing that an order could save

WORDS = (
    ("Slot", "A place in the engine. It works on as many requests at once as it has slots; the others wait."),
    ("Latency", "From a request's arrival to the last token of its answer: waiting and writing."),
    ("Load", "How much is asked of the engine: 1 is all that it can do, above 1 the queue only grows."),
    ("Arrival order", "First come, first served: what servers do when they know nothing of lengths."),
    ("Policy", "The rule by which the next request is chosen when a slot comes free."),
    ("True lengths", "What a perfect predictor would give: no predictor does better."),
    (
        "Kendall's tau",
        "How good a predictor's order is: 1 always tells which of two answers is longer, 0 is a coin's toss.",
    ),
)


def simulation_page(study: Study, found: Mapping[str, Any], told: Told = lambda said: None) -> Page:
    """`found` is what `lengthwise simulate --json` prints; runs for the figures are simulated here."""
    traces, asked = _traces(study, found), found["asked"]
    timelines = {name: (kind, trace.timeline) for name, (kind, trace) in list(traces.items())[:2]}
    drawn: list[Figure] = [
        policies(found, f"{asked}, true lengths"),
        slots(timelines, study.config.engine.slots),
        latencies(traces),
        waits(traces, study.draw(0).answer_tokens),
        sweeps(found),
    ]
    sparing = asked if asked.startswith("promise") else SPARING
    grid = where_it_pays(study, sparing, found["tau"], told)
    if grid:
        drawn.append(places(grid, sparing))
    answer, because = sentences(found)
    is_gain = found["verdict"] == "gain"
    return Page(
        f"lengthwise simulate {found['log']}",
        answer,
        because,
        is_gain,
        _tiles(found),
        tuple(drawn),
        WORDS,
        _notes(found, has_places=bool(grid)),
    )


def sentences(found: Mapping[str, Any]) -> tuple[str, str]:
    """The answer, and why."""
    base = found["policies"][BASE]
    latency_s, wait_s = base["mean_latency_s"], base["mean_wait_s"]
    spent = (
        f"In arrival order a request takes {spoken_s(latency_s)} on average, {spoken_s(wait_s)} of it waiting for a "
        "free slot."
    )
    if found["verdict"] == "gain":
        name = found["policy"]
        sooner = f"{percent(1 - found['ratio'])} sooner"
        answer = f"Yes: with answer lengths predicted, answers would come {sooner} on average."
        after = found["policies"][name]["mean_latency_s"]
        order = f"With the policy “{name}” ({policy(name).title}) it would take {spoken_s(after)}."
        tail = _tail(found["p99_ratio"])
        return answer, f"{spent} {order} {tail}"
    dear = _dear(found)
    answer = "No gain expected: knowing answer lengths would not make answers come noticeably sooner."
    if dear:
        answer = "No gain expected without a price: answers could come sooner on average, and the slowest would pay."
    return answer, " ".join(filter(None, (spent, _why(found, wait_s / latency_s), dear, _turning(found))))


def _dear(found: Mapping[str, Any]) -> str:
    """The policy that gains most on average of those for which the slowest pay too much."""
    rule = found["rule"]
    ratios = {
        name: (one["mean_ratio"]["mean"], one["p99_ratio"]["mean"])
        for name, one in found["policies"].items()
        if one["mean_ratio"]["mean"] <= 1 - rule["min_gain"] and one["p99_ratio"]["mean"] > rule["max_p99_ratio"]
    }
    if not ratios:
        return ""
    name, (mean, p99) = min(ratios.items(), key=lambda one: one[1])
    return f"With “{name}” it would be {percent(1 - mean)} less, at {p99:.1f} times the time of the slowest hundredth."


def _tail(ratio: float) -> str:
    if ratio > 1.02:
        return f"The price: the slowest hundredth takes {ratio:.2f} times as long as before."
    return "The slowest hundredth takes no longer than before."


def _why(found: Mapping[str, Any], waiting: float) -> str:
    if waiting < FEW:
        return "The rest is writing, which no order can shorten."
    if found["policy"] is None:
        limit = found["rule"]["max_p99_ratio"]
        return f"Every policy makes the slowest hundredth more than {limit:g} times as slow as before."
    saved, ends = 1 - found["ratio"], found["ratio_ci95"]
    if saved <= 0:
        return "No policy that spares the slowest makes that less."
    chance = "" if ends is None else f" (95 %: {_change(ends[0])} to {_change(ends[1])})"
    reason = "too little to count" if saved < found["rule"]["min_gain"] else "which may be chance"
    best = f"The best policy that spares the slowest, “{found['policy']}”,"
    return f"{best} would save {percent(saved)} of the time{chance}: {reason}."


def _change(ratio: float) -> str:
    return f"{percent(1 - ratio)} less" if ratio <= 1 else f"{percent(ratio - 1)} more"


def _turning(found: Mapping[str, Any]) -> str:
    """What would have to be otherwise."""
    start, load = found["pays_from_load"], found["load"]
    if start is not None and load is not None and start > load:
        return f"It would start to pay at a load of {start:g}; this log has {load:.2f}."
    return ""


def _tiles(found: Mapping[str, Any]) -> tuple[Tile, ...]:
    base, asked = found["policies"][BASE], found["policies"].get(found["asked"])
    latency_s, wait_s, load = base["mean_latency_s"], base["mean_wait_s"], found["load"]
    tiles = [
        Tile("Requests", f"{found['num_requests']:,}", f"{found['num_seeds']} draws of {found['num_a_run']:,}"),
        Tile("Slots", f"{found['slots']:,}"),
        Tile("Load", f"{load:.2f}", "1 is all the engine can do") if load is not None else Tile("Load", "all at once"),
        Tile("Mean latency", spoken_s(latency_s), "in arrival order"),
        Tile("of which waiting", spoken_s(wait_s), percent(wait_s / latency_s)),
    ]
    if asked is not None:
        ratio = f"{asked['mean_ratio']['mean']:.3f} times as long"
        tiles.append(Tile(f"with {found['asked']}", spoken_s(asked["mean_latency_s"]), ratio))
    return tuple(tiles)


def _traces(study: Study, found: Mapping[str, Any]) -> Traces:
    """Arrival order, what is asked for, and the same with true lengths; and the plain shortest first, which tells what
    a promise is good for. All on the log itself."""
    workload, engine, asked = study.draw(0), study.config.engine, found["asked"]
    estimates = study.guess(workload, np.random.default_rng([0, 2]))
    exact = guess_exactly(workload, np.random.default_rng(0))
    traces: dict[str, tuple[Any, Trace]] = {
        "arrival order": ("base", traced(BASE, workload, estimates, engine)),
        asked: ("ours", traced(asked, workload, estimates, engine)),
    }
    if asked != "shortest":
        traces["shortest"] = ("peer", traced("shortest", workload, estimates, engine))
    traces[f"{asked}, true lengths"] = ("oracle", traced(asked, workload, exact, engine))
    return traces


def _notes(found: Mapping[str, Any], *, has_places: bool) -> tuple[str, ...]:
    cost = found["cost"]
    read = f"{short(1e3 * cost['read_token_s'])} ms" if cost["read_token_s"] else "nothing"
    off = f"; single passes lie {percent(cost['relative_error'])} from that" if cost["relative_error"] else ""
    said = [
        f"Simulated, not run. A step of the engine takes {short(1e3 * cost['step_fixed_s'])} ms and "
        f"{short(1e3 * cost['step_row_s'])} ms a request, reading a prompt's token {read} "
        f"({found['cost_source']}{off}).",
        f"Of lengths is known: {found['predictor']} (Kendall's tau {found['tau']:.2f}).",
        "Ratios and their 95 % intervals are over the draws; slots, latencies and waits are of the first.",
    ]
    if has_places:
        said.append(
            f"Where it pays: a predictor of the same tau, {NUM_SEEDS} draws a cell; mean lengths stay what they are"
            + ("." if found["load"] is not None else "; the log has no times, so arrivals are random there.")
        )
    return (*said, *filter(None, [prefix_cache_sentence(found)]), *found["notes"])
