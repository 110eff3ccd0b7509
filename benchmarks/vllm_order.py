"""Longest first against arrival order on a real vLLM server, with recorded lengths.

    python -m benchmarks.vllm_order LENGTHS [--train LENGTHS] [--rows 16 64] [--rounds 5] [--prompts 1000]

Each prompt of LENGTHS (JSON lines with `instruction` or `prompt`, and a field of lengths) is answered with exactly as
many tokens as recorded: `ignore_eos`, and the length as `max_completion_tokens`, which vLLM prefers to the `max_tokens`
that all requests have alike, so that no contender sees the length in its limit. All goes through `Pipeline` and the
engine for OpenAI's API. A server is started for each number of rows (`--max-num-seqs`), with `make test-vllm`'s
environment. "ahead" contenders have twice as many requests at the server as it has rows, so that it never waits for
the next one; of those, "hinted" ones tell it our order as priorities. Predicted lengths are those of a text predictor
that learned from `--train`, else true ones with noise.

Says each run, a table, and one JSON line. Beside the time it counts the server's steps, passes through the model: what
an order is worth where a step costs the same for any number of rows, which is nearly so on a GPU. Rows that stand empty
until the next request has come over cost steps, too; on a busy machine they are many.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from lengthwise.benchmarks.tables import median_with_interval, num_cores, workload_hash
from lengthwise.engines.openai import ServerOptions, open_openai
from lengthwise.engines.openai.engine import OpenAIEngine
from lengthwise.errors import UsageError
from lengthwise.learning.importing.prompts import prompt_of
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.oracle import OraclePredictor
from lengthwise.predictors.text.predictor import TextPredictor
from lengthwise.protocols import LengthPredictor
from lengthwise.testing import NoisyOracle
from lengthwise.types import Request
from tests.vllm.server import NAME, PYTHON_VARIABLE, Server, find_python, running

LIMIT = 512  # tokens; what the recorded answers were cut at
SIGMA = 0.8  # of the noisy oracle: Kendall's tau 0.62 on the paper's lengths, about what texts tell
REFERENCE = "arrival"


@dataclass(frozen=True, slots=True)
class Workload:
    """Prompts, and how many tokens the answer to each has."""

    requests: Sequence[Request]
    lengths: Mapping[str, int]

    @property
    def num_tokens(self) -> int:
        return sum(self.lengths.values())

    @property
    def sha256(self) -> str:
        lengths = json.dumps([self.lengths[request.id] for request in self.requests])
        return hashlib.sha256(f"{workload_hash(self.requests)}{lengths}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Contender:
    """A predictor, and how the requests stand at the server."""

    title: str
    predictor: LengthPredictor | str
    is_ahead: bool = False
    is_hinted: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds from the start to the last answer, and to 99 % of them; the server's passes through the model."""

    wall_s: float
    p99_s: float
    num_steps: int


def read_workload(path: Path, length_field: str, num_prompts: int) -> Workload:
    """The first prompts of a file of lengths; each becomes a text, as the paper's data joins instruction and input."""
    requests, lengths = [], {}
    for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()[:num_prompts]):
        prompt = prompt_of(row)
        if prompt is None or not row.get(length_field):
            raise UsageError(f"{path} has a row without a prompt or {length_field}; name the field with --field.")
        num_tokens = min(LIMIT, int(row[length_field]))
        exactly = {"ignore_eos": True, "max_completion_tokens": num_tokens}
        text = "\n".join(filter(None, map(str, prompt.fields.values())))
        requests.append(Request(str(row["id"]), text, max_tokens=LIMIT, api_fields=exactly))
        lengths[str(row["id"])] = num_tokens
    return Workload(requests, lengths)


def trained(workload: Workload) -> TextPredictor:
    lengths = [workload.lengths[request.id] for request in workload.requests]
    is_cut = [length >= LIMIT for length in lengths]
    return TextPredictor.fit(workload.requests, lengths, is_cut, model=None)


def contenders(workload: Workload, learned: LengthPredictor | None) -> dict[str, Contender]:
    oracle = OraclePredictor(workload.lengths)
    predicted = learned or NoisyOracle(dict(workload.lengths), SIGMA)
    return {
        REFERENCE: Contender("arrival order", "none"),
        "predicted": Contender("longest first, predicted lengths", predicted),
        "oracle": Contender("longest first, true lengths", oracle),
        "arrival_ahead": Contender("arrival order, ahead", "none", is_ahead=True),
        "predicted_ahead": Contender("predicted lengths, ahead", predicted, is_ahead=True),
        "predicted_hinted": Contender("predicted lengths, ahead, hinted", predicted, is_ahead=True, is_hinted=True),
        "oracle_hinted": Contender("true lengths, ahead, hinted", oracle, is_ahead=True, is_hinted=True),
    }


def measure(contender: Contender, workload: Workload, server: Server, num_rows: int) -> Run:
    """One run, on connections of its own. Every answer must have the length that was asked for."""
    concurrency = num_rows * (2 if contender.is_ahead else 1)
    options = ServerOptions((server.base_url,), NAME, concurrency=concurrency)
    if contender.is_hinted:
        options = replace(options, priority="lower")
    steps_before = server.num_steps
    with Pipeline(engine=open_openai(options), predictor=contender.predictor) as pipeline:
        assert isinstance(pipeline.engine, OpenAIEngine)
        started_s = time.perf_counter()
        answered_s = []
        for answer in pipeline.stream(workload.requests):
            answered_s.append(time.perf_counter() - started_s)
            assert answer.completion_tokens == workload.lengths[answer.id], f"{answer.id}: {answer}"
        assert pipeline.engine.num_retries == 0, "the server did not take all requests"
        p99_s = answered_s[round(0.99 * len(answered_s)) - 1]
        return Run(answered_s[-1], p99_s, server.num_steps - steps_before)


Runs = dict[str, list[Run]]


def rounds(known: Mapping[str, Contender], workload: Workload, server: Server, num_rows: int, num_rounds: int) -> Runs:
    """Every contender once a round, each round beginning with another one; a short run first, uncounted."""
    few = workload.requests[: 2 * num_rows]
    measure(known[REFERENCE], Workload(few, workload.lengths), server, num_rows)
    runs: Runs = {name: [] for name in known}
    for number in range(num_rounds):
        shift = number % len(known)
        for name in [*list(known)[shift:], *list(known)[:shift]]:
            run = measure(known[name], workload, server, num_rows)
            runs[name].append(run)
            rate = workload.num_tokens / run.wall_s
            said = f"{run.wall_s:.2f} s, {rate:,.0f} tokens/s, {run.num_steps:,} steps"
            print(f"{num_rows} rows, round {number + 1}, {name}: {said}", flush=True)
    return runs


def gains(runs: Runs, above: str, below: str, of: Callable[[Run], float]) -> dict[str, Any]:
    """How many times as fast `above` is as `below`, round by round."""
    pairs = zip(runs[above], runs[below], strict=True)
    return median_with_interval([of(there) / of(here) for here, there in pairs])


def wall_s(run: Run) -> float:
    return run.wall_s


def num_steps(run: Run) -> float:
    return run.num_steps


def median(listed: Sequence[Run], of: Callable[[Run], float]) -> float:
    return float(np.median([of(run) for run in listed]))


def table(known: Mapping[str, Contender], runs: Runs, num_requests: int, num_rows: int) -> Table:
    shown = Table(title=f"{num_rows} rows")
    for heading in ("", "requests/s", "last answer", "99 %", "times as fast as arrival order", "steps", "in steps"):
        shown.add_column(heading, justify="right" if heading else "left")
    for name, listed in runs.items():
        gain, in_steps = gains(runs, name, REFERENCE, wall_s), gains(runs, name, REFERENCE, num_steps)["median"]
        low, high = gain["ci95"]
        last_s, most_s = median(listed, wall_s), median(listed, lambda run: run.p99_s)
        times = (f"{num_requests / last_s:.2f}", f"{last_s:.1f} s", f"{most_s:.1f} s")
        steps = (f"{median(listed, num_steps):,.0f}", f"{in_steps:.3f}×")
        shown.add_row(known[name].title, *times, f"{gain['median']:.3f}× [{low:.3f}, {high:.3f}]", *steps)
    return shown


def summary(runs: Runs) -> dict[str, Any]:
    others = [name for name in runs if name != REFERENCE]
    return {
        "wall_s": {name: median_with_interval([run.wall_s for run in listed]) for name, listed in runs.items()},
        "times_as_fast_as_arrival": {name: gains(runs, name, REFERENCE, wall_s) for name in others},
        "in_steps": {name: gains(runs, name, REFERENCE, num_steps) for name in others},
        "hinted_over_ahead": gains(runs, "predicted_hinted", "predicted_ahead", wall_s),
        "predicted_ahead_over_arrival_ahead": gains(runs, "predicted_ahead", "arrival_ahead", wall_s),
        "samples": {name: [asdict(run) for run in listed] for name, listed in runs.items()},
    }


def taus(known: Mapping[str, Contender], workload: Workload) -> dict[str, float]:
    """How well each contender's lengths are ordered: Kendall's tau against the true ones."""
    from scipy.stats import kendalltau

    true = [workload.lengths[request.id] for request in workload.requests]
    asked = {name: one.predictor for name, one in known.items() if not isinstance(one.predictor, str)}
    return {
        name: round(float(kendalltau(true, predictor.predict(workload.requests).median).statistic), 3)
        for name, predictor in asked.items()
    }


def main() -> None:
    options = _arguments()
    logging.getLogger("lengthwise").setLevel(logging.ERROR)  # that a server can't cut is known
    python = find_python()
    if python is None:
        raise SystemExit(f"There is no vLLM here: run `make test-vllm` once, or set {PYTHON_VARIABLE}.")
    workload = read_workload(options.lengths, options.field, options.prompts)
    learned = trained(read_workload(options.train, options.field, 10_000)) if options.train else None
    known = contenders(workload, learned)
    found, server_version = {}, ""
    for num_rows in options.rows:
        with tempfile.TemporaryDirectory() as folder, running(python, Path(folder) / "log", num_rows) as server:
            server_version = server.version
            runs = rounds(known, workload, server, num_rows, options.rounds)
        Console(width=140).print(table(known, runs, len(workload.requests), num_rows))
        found[str(num_rows)] = summary(runs)
    line = {
        "bench": "vllm_order",
        "rounds": options.rounds,
        "versions": {"lengthwise": version("lengthwise"), "vllm": server_version},
        "hardware": {"machine": platform.machine(), "cores": num_cores(), "system": platform.system()},
        "workload": {
            "num_requests": len(workload.requests),
            "num_tokens": workload.num_tokens,
            "field": options.field,
            "sha256": workload.sha256,
        },
        "contenders": {name: one.title for name, one in known.items()},
        "kendall_tau": taus(known, workload),
        "is_trained": learned is not None,
        "by_rows": found,
    }
    print(json.dumps(line))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Longest first against arrival order on a real vLLM server.")
    parser.add_argument("lengths", type=Path, help="JSON lines with prompts and recorded lengths")
    parser.add_argument("--train", type=Path, help="others, to learn a text predictor from")
    parser.add_argument("--field", default="L_t0.7", help="the field of the length (default: %(default)s)")
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 64], help="--max-num-seqs of the server")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=1000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
