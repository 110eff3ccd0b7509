"""The leader board from raw data, by one command: `make leaderboard`, or `python -m tools.leaderboard.make`.

It collects the bundled model's own lengths, trains and scores every kind of predictor on them and on Vicuna's lengths,
takes the trained ones to other models, and writes docs/leaderboard.md; what it measured stands in
benchmarks/leaderboard/. What is finished in --work is not done again, so it can be interrupted at any time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthwise.benchmarks.perception.cells import Cell, Source
from lengthwise.benchmarks.tables import num_cores

ROOT = Path(__file__).parents[2]
RAW = Path("benchmarks/leaderboard")
PAGE = Path("docs/leaderboard.md")
SETTINGS = {name: Path(f"tools/leaderboard/{name}.toml") for name in ("own", "vicuna")}
VICUNA_TRAIN, VICUNA_TEST = "alpaca-vicuna/train", "alpaca-vicuna/eval-1000"
LIMIT = 512
ONCE = {  # kinds that are trained with the first seed only: they take minutes to an hour each time
    "own": "encoder,lora,len",
    "vicuna": "encoder,lora,len,stack,po,pia,pooling,entropy",
}
ADAPTED = ("text", "encoder")  # taken to other models

ABOUT = """# Leader board of predictors

Made by `make leaderboard` from raw data; nothing here is written by hand. All figures stand in
`benchmarks/leaderboard/*.json`, what each means in [metrics.md](metrics.md), the kinds in
[predictors.md](predictors.md).

Each kind is trained in a process of its own, with three seeds, the slow ones with one. A figure is the median over
seeds; in brackets a 95 % interval over seeds and prompts (500 samples of prompts, the same for all kinds). The
predicted number is the estimate's median; labels and predictions end at 512 tokens. `*`: asks or looks into a language
model, here the bundled one (3.7 million parameters), also where lengths are another model's. Times are those of the
machine below, which other programs may have used, too; processor time does not depend on that.
"""
OWN = """## Own model

Lengths of the bundled model itself: {train} prompts to learn from, {test} held out, of combinations that neither the
model nor a predictor has seen, four answers each (temperatures 0, 0.3, 0.5, 0.7).
"""
VICUNA = """## Vicuna

Vicuna-7B's lengths on Alpaca's prompts (`alpaca-vicuna/train`, scored on `alpaca-vicuna/eval-1000`), four answers each.
The paper's row is what its repository says of the same 1,000 prompts.
"""
TRANSFER = """## Other models

Predictors of single answers, learned from Vicuna-7B's lengths on Alpaca's prompts, on the answers of twelve models to
AlpacaEval's 805 prompts (lengths there are characters ÷ 4.1). Kendall's tau of predicted and true lengths: as it is,
after `lengthwise train stack --base` on some of the model's own answers, and of a text predictor that learned from
those answers alone. Means over 20 random splits, in brackets between which 95 % of them lie. A third of the prompts is
held out, which leaves 536 to learn from where 1,000 would be wanted. How far a stack's corrections may go was chosen on
the nine models other than vicuna-7b, vicuna-13b and gpt4.
"""
TITLES = {"max": "### The longest of four answers (the paper's target)", "answer": "### One answer"}


@dataclass(frozen=True)
class Step:
    """A command of the package: its arguments, and what it leaves: `NAME.json` in RAW, `NAME.md` in the work folder."""

    name: str
    arguments: tuple[str, ...]

    @property
    def command(self) -> str:
        return " ".join(("lengthwise", *self.arguments))


def steps(work: Path, kinds: str) -> list[Step]:
    """The two tables, each with two targets."""
    own = (str(work / "own" / "train.jsonl"), str(work / "own" / "test.jsonl"), "--limit", str(LIMIT))
    options = ("--kinds", kinds, "--model", "bundled", "--work", str(work))
    sets = {"own": own, "vicuna": (VICUNA_TRAIN, VICUNA_TEST)}
    return [
        Step(f"{name}-{target}", ("bench", "predictors", *data, "--target", target, *options, *_own_options(name)))
        for name, data in sets.items()
        for target in TITLES
    ]


def _own_options(name: str) -> tuple[str, ...]:
    return ("--settings", str(SETTINGS[name]), "--once", ONCE[name])


def run_all(made: Sequence[Step], work: Path, jobs: int) -> dict[str, dict[str, Any]]:
    """The steps' JSON by name, so many steps at once, each on its share of the cores; the last, which take longest,
    begin. Ends the program where one fails, when those that run have ended."""
    num_threads = max(1, num_cores() // jobs)
    in_turn = made[::-1]
    with ThreadPoolExecutor(jobs) as pool:
        found = pool.map(lambda step: run(step, work, num_threads), in_turn)
        return dict(zip((step.name for step in in_turn), found, strict=True))


def run(step: Step, work: Path, num_threads: int) -> dict[str, Any]:
    """The step's JSON; what it says goes to the terminal. Ends the program where it fails."""
    page = work / f"{step.name}.md"
    command = [sys.executable, "-m", "lengthwise.cli", *step.arguments, "-o", str(page), "--json"]
    print(step.command, file=sys.stderr)
    threads = {"OMP_NUM_THREADS": str(num_threads)}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | threads, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode or not done.stdout.strip():
        sys.exit(f"{step.command}: exit code {done.returncode}. Mend that, and start again: what is done stays done.")
    found: dict[str, Any] = json.loads(done.stdout)
    (ROOT / RAW).mkdir(parents=True, exist_ok=True)
    (ROOT / RAW / f"{step.name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def transfer_step(work: Path, mirror: Path | None) -> Step | None:
    """Of the predictors of single answers that were trained for Vicuna's table."""
    train, test = (Source.of(name, mirror, None) for name in (VICUNA_TRAIN, VICUNA_TEST))
    settings = tomllib.loads((ROOT / SETTINGS["vicuna"]).read_text(encoding="utf-8"))
    folders = []
    for kind in ADAPTED:
        trained = work / "predictors" / Cell(kind, "answer", 0, train, test, settings.get(kind, {})).name
        link = work / "adapted" / kind
        if trained.is_dir():
            link.parent.mkdir(exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(trained.resolve(), target_is_directory=True)
            folders.append(str(link))
    return Step("transfer", ("bench", "transfer", *folders)) if folders else None


def page(work: Path, made: Sequence[Step], lines: dict[str, dict[str, Any]]) -> str:
    """The whole page, from the parts."""
    parts = [ABOUT]
    for name, about in (("own", _own_about(work)), ("vicuna", VICUNA)):
        parts.append(about)
        for target, title in TITLES.items():
            parts += [f"{title}\n", (work / f"{name}-{target}.md").read_text(encoding="utf-8")]
    if "transfer" in lines:
        parts += [TRANSFER, (work / "transfer.md").read_text(encoding="utf-8")]
    return "\n".join([*parts, *_rests_on(work, made, lines)]).rstrip() + "\n"


def _own_about(work: Path) -> str:
    counts = {
        name: len((work / "own" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())
        for name in ("train", "test")
    }
    return OWN.format(**{name: f"{count:,}" for name, count in counts.items()})


def _rests_on(work: Path, made: Sequence[Step], lines: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield "## What it rests on\n"
    yield f"    python -m tools.leaderboard.own_lengths --out {work / 'own'}"
    for step in made:
        yield f"    {step.command}"
    first = next(iter(lines.values()))
    dates = sorted({line["date"] for line in lines.values()})
    machine = first["machine"]
    yield f"\n{dates[0]} to {dates[-1]}; {machine['processor']}, {machine['cores']} cores, {machine['system']}; Python"
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    yield f"{first['python']}, {versions}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(".leaderboard"))
    parser.add_argument("--kinds", default="all")
    parser.add_argument("--mirror", type=Path, help="folder that public sets are looked for in first")
    parser.add_argument("--jobs", type=int, default=1, help="tables at once, each on its share of the cores")
    options = parser.parse_args()
    own = [sys.executable, "-m", "tools.leaderboard.own_lengths", "--out", str(options.work / "own")]
    subprocess.run(own, cwd=ROOT, check=True)
    made = steps(options.work, options.kinds)
    lines = run_all([_mirrored(step, options.mirror) for step in made], options.work, options.jobs)
    last = transfer_step(options.work, options.mirror)
    if last is not None:
        lines |= run_all([_mirrored(last, options.mirror)], options.work, 1)
        made.append(last)
    (ROOT / PAGE).write_text(page(options.work, made, lines), encoding="utf-8")
    print(f"{PAGE} is written.", file=sys.stderr)


def _mirrored(step: Step, mirror: Path | None) -> Step:
    return step if mirror is None else Step(step.name, (*step.arguments, "--mirror", str(mirror)))


if __name__ == "__main__":
    main()
