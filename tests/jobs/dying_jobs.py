"""A job that dies at every step: before, after and in the middle of each write, flush, renaming and removal.

    python dying_jobs.py '{"kind": "batch", "before": [...], "killed": {...}, "finals": [...], "stride": 1}'

For every such step of the command `killed` a process runs the commands `before`, then forks: the child runs `killed`
until it dies there. Then each of `finals` has to end with every row once and nothing temporary left, and to find
nothing to do the next time. A command is a JSON object of options, with `is_ill`: every fourth request fails. Prints
one JSON line: how often a job died, and all that was wrong then.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.errors import LengthwiseError
from lengthwise.jobs import Job, JobOptions
from lengthwise.pipeline import Pipeline
from lengthwise.types import Capabilities, ErrorInfo, Prepared, Request

NUM_ROWS = 9
NAMES = [f"r{i}" for i in range(NUM_ROWS)]
STEPS = ("pwrite", "write", "replace", "fsync", "ftruncate", "unlink")
CALL = {"method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": []}}
DIED = 9


class FlakyEngine(ReplayEngine):
    is_ill = False

    def prepare(self, requests: Sequence[Request]) -> list[Prepared | ErrorInfo]:
        prepared = super().prepare(requests)
        return [
            ErrorInfo("server_error", "Down.") if self.is_ill and int(request.id[1:]) % 4 == 0 else one
            for request, one in zip(requests, prepared, strict=True)
        ]


def run(options: JobOptions, is_ill: bool = False, **changes: Any) -> str:
    """One command; its status."""
    if options.prompts == Path("-"):
        sys.stdin = io.TextIOWrapper(open(options.answers.with_name("p.jsonl"), "rb"))  # noqa: SIM115
    engine = FlakyEngine({name: 3 + i % 5 for i, name in enumerate(NAMES)}, ReplayConfig(Capabilities(max_running=2)))
    engine.is_ill = is_ill
    with (
        Job.open(replace(options, **changes)) as job,
        Pipeline(engine=engine, predictor="none", window=4) as pipeline,
    ):
        return job.run(pipeline).status


def die_at(step: int, how: str) -> None:
    """This process ends there."""
    steps = count(1)

    def dying(name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def step_or_die(*arguments: Any, **options: Any) -> Any:
            if next(steps) != step:
                return act(*arguments, **options)
            if how == "after":
                act(*arguments, **options)
            if how == "amid" and name in ("pwrite", "write"):
                descriptor, data, *rest = arguments
                act(descriptor, data[: len(data) // 2], *rest)
            os._exit(DIED)

        return step_or_die

    for name in STEPS:
        setattr(os, name, dying(name, getattr(os, name)))


def dies(act: Callable[[], Any], step: int, how: str) -> bool:
    """Whether `act` had as many steps."""
    child = os.fork()
    if child == 0:
        die_at(step, how)
        act()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, DIED), code
    return code == DIED


def begun(folder: Path, kind: str, before: Sequence[dict[str, Any]]) -> JobOptions:
    """A job of a kind, for which the commands `before` were run."""
    is_batch = "batch" in kind
    messages = [{"role": "user", "content": "Hi."}]
    batch = {**CALL, "body": {"model": "m", "messages": messages}}
    rows = [{"custom_id": name, **batch} if is_batch else {"id": name, "prompt": "Hi."} for name in NAMES]
    (folder / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    prompts = Path("-") if "standard input" in kind else folder / "p.jsonl"
    options = JobOptions(prompts, folder / ("a.parquet" if "parquet" in kind else "a.jsonl"), window=4)
    for command in before:
        run(options, **command)
    return options


def ids(options: JobOptions) -> list[str]:
    """Of all rows in the answers' files."""
    if options.answers.suffix == ".parquet":
        import pyarrow.parquet

        return list(pyarrow.parquet.read_table(options.answers)["id"].to_pylist())
    found = []
    for path in (options.answers, options.answers.with_name("a.errors.jsonl")):
        rows = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
        found += [row.get("custom_id", row.get("id")) for row in rows]
    return found


def fault(options: JobOptions, final: dict[str, Any]) -> str | None:
    """What is wrong after `final`, if anything."""
    try:
        run(options, **final)
        again = run(options, **{name: value for name, value in final.items() if name != "overwrite"})
    except LengthwiseError as error:
        return f"{type(error).__name__}: {error}"
    left = {path.name for path in options.answers.parent.iterdir()} - {"p.jsonl", "a.errors.jsonl"}
    if left != {options.answers.name, options.journal.name}:
        return f"left behind: {sorted(left)}"
    if sorted(ids(options)) != NAMES:
        return f"rows: {ids(options)}"
    return None if again == "already_done" else f"the next time: {again}"


def main(kind: str, before: Sequence[Any], killed: dict[str, Any], finals: Sequence[Any], stride: int) -> None:
    num_deaths, faults = 0, []
    for step in count(1, stride):
        has_ended = False
        for how in ("before", "amid", "after"):
            for final in finals:
                with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
                    options = begun(Path(folder), kind, before)
                    has_died = dies(lambda options=options: run(options, **killed), step, how)  # type: ignore[misc]
                    num_deaths += has_died
                    has_ended |= not has_died
                    if found := fault(options, final):
                        faults.append(f"{how} step {step}, then {final}: {found}")
        if has_ended:
            break
    print(json.dumps({"deaths": num_deaths, "faults": faults}))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
