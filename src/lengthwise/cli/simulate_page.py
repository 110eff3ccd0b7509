"""What `lengthwise simulate` says, on one page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lengthwise.report.prefix_cache import prefix_cache_sentence
from lengthwise.simulation.study import HIT_RATE

_COLUMNS = {
    "mean_latency_s": "mean latency, s",
    "p99_latency_s": "p99 latency, s",
    "mean_wait_s": "mean wait, s",
    "makespan_s": "to the last, s",
}


def page(found: Mapping[str, Any]) -> str:
    answer = f"{_answer(found)} {prefix_cache_sentence(found)}".strip()
    return "\n\n".join([answer, _about(found), _table(found), *_sweeps(found)])


def _answer(found: Mapping[str, Any]) -> str:
    """One sentence that a newcomer understands."""
    name = found["policy"]
    if found["verdict"] == "gain":
        title, less = found["policies"][name]["title"], 1 - found["ratio"]
        return (
            f"**Gain expected: {less:.0%} less mean latency** than in arrival order ({_interval(found)}), with "
            f"`{name}` ({title}); the slowest hundredth takes {found['p99_ratio']:.2f} times as long."
        )
    dear = _dear(found)
    said = "No gain expected, but for what the slowest pay." if dear else "No gain expected."
    return f"**{said}** {_why(found)} {dear}".strip()


def _why(found: Mapping[str, Any]) -> str:
    base = found["policies"]["arrival"]
    wait, latency = base["mean_wait_s"], base["mean_latency_s"]
    if wait < 0.05 * latency:
        return f"Requests hardly wait here: {wait:.2g} s of {latency:.2g} s, so no order can save much."
    if found["policy"] is None:
        return f"Every policy makes the slowest hundredth more than {found['rule']['max_p99_ratio']:g} times as slow."
    best = f"The best that spares the slowest, `{found['policy']}`,"
    return f"{best} has {found['ratio']:.3f} times the mean latency ({_interval(found)})."


def _dear(found: Mapping[str, Any]) -> str:
    """Policies that gain on average what the slowest pay."""
    rule = found["rule"]
    dear = {
        name: (one["mean_ratio"]["mean"], one["p99_ratio"]["mean"])
        for name, one in found["policies"].items()
        if one["mean_ratio"]["mean"] <= 1 - rule["min_gain"] and one["p99_ratio"]["mean"] > rule["max_p99_ratio"]
    }
    if not dear:
        return ""
    name = min(dear, key=lambda one: dear[one])
    latency, p99 = dear[name]
    return f"`{name}` would have {latency:.2f} times the mean latency, at {p99:.1f} times the 99th percentile."


def _about(found: Mapping[str, Any]) -> str:
    load = "all at once" if found["load"] is None else f"at a load of {found['load']:.2f}"
    draws = f"{found['num_seeds']} draws of {found['num_a_run']:,}"
    cache = f", a prefix cache of {found['prefix_cache_tokens']:,} tokens" if found["prefix_cache_tokens"] else ""
    said = f"{found['num_requests']:,} requests of {found['log']}, {draws}, {load}, {found['slots']} slots{cache}. "
    said += (
        f"Lengths known: {found['predictor']} (Kendall's tau {found['tau']:.2f}). Intervals are 95 %, over the draws."
    )
    return " ".join([said, _cost(found), *found["notes"]])


def _cost(found: Mapping[str, Any]) -> str:
    cost = found["cost"]
    step = f"{1e3 * cost['step_fixed_s']:.3g} ms + {1e3 * cost['step_row_s']:.3g} ms a row"
    read = f"{1e3 * cost['read_token_s']:.3g} ms" if cost["read_token_s"] else "nothing"
    said = f"A step costs {step}, reading a prompt's token {read} ({found['cost_source']}"
    off = f"; single passes lie {cost['relative_error']:.0%} from that" if cost["relative_error"] else ""
    return f"{said}{off})."


def _table(found: Mapping[str, Any]) -> str:
    columns = _COLUMNS | ({HIT_RATE: "in the prefix cache"} if found["prefix_cache_tokens"] else {})
    rows = [["", *columns.values(), "mean latency by arrival order's", "p99 by arrival order's"]]
    rows.append(["---"] * len(rows[0]))
    for name, one in found["policies"].items():
        cells = [f"{one[key]:,.4g} {_ends(one['ci95'][key])}".strip() for key in columns]
        ratios = [f"{one[key]['mean']:.3f} {_ends(one[key]['ci95'])}".strip() for key in ("mean_ratio", "p99_ratio")]
        rows.append([f"`{name}`", *cells, *ratios])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _sweeps(found: Mapping[str, Any]) -> list[str]:
    asked = found["asked"]
    said = [f"With true lengths, `{asked}` has {found['oracle_ratio']['mean']:.3f} times the mean latency."]
    if found["by_load"]:
        said.append(_sweep(f"`{asked}` by load", found["by_load"], found["pays_from_load"], "a load of"))
    title = f"`{asked}` by Kendall's tau of the predictor"
    said.append(_sweep(title, found["by_tau"], found["pays_from_tau"], "a tau of"))
    return said


def _sweep(title: str, ratios: Mapping[str, Any], start: float | None, what: str) -> str:
    cells = ", ".join(f"{level}: {ratio['mean']:.3f}" for level, ratio in ratios.items())
    pays = "it pays at none of these" if start is None else f"it pays from {what} {start:g} on"
    return f"{title}, mean latency by arrival order's: {cells}; {pays}."


def _interval(found: Mapping[str, Any]) -> str:
    ends = found["ratio_ci95"]
    return "one draw" if ends is None else f"ratio {found['ratio']:.3f}, 95 % {ends[0]:.3f} to {ends[1]:.3f}"


def _ends(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f"({ends[0]:,.4g} to {ends[1]:,.4g})"
