"""Pictures for the README, cut from reports as a browser shows them.

    python -m tools.report_pictures LOG [FOLDER]

Runs 300 of the bundled prompts on the bundled model (on a machine that does nothing else), simulates LOG (a trace of
`lengthwise data list`, or a file) on 4 slots at a load of 0.9, and puts `slots.png` and `where.png` into FOLDER
(docs/images). Needs Chromium.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from pathlib import Path

from lengthwise.bundled import PROMPTS_FILE
from lengthwise.cli import main as lengthwise
from tests.report.browser import Browser, find_browser

NUM_PROMPTS, NUM_SLOTS = 300, "32"
WIDTH = 800  # of the window: charts get the width that a README has
SCALE = 1.5  # pixels a point, for screens that are finer
MARGIN = 12
MAX_BYTES = 150_000

# A figure of a report, from its head line to its last chart.
PLACE = """(name => {
  const section = document.getElementById(name), box = section.getBoundingClientRect();
  const charts = [...section.querySelectorAll("figure")];
  return {x: box.x, y: box.y, width: box.width, height: charts.at(-1).getBoundingClientRect().bottom - box.y};
})"""


def cut(browser: Browser, report: Path, figure: str, picture: Path) -> None:
    """One figure of a report as PNG."""
    place = browser.open(report, WIDTH).evaluate(f"{PLACE}({figure!r})")
    clip = {
        "x": place["x"] - MARGIN,
        "y": place["y"] - MARGIN,
        "width": place["width"] + 2 * MARGIN,
        "height": place["height"] + 2 * MARGIN,
    }
    content = browser.open(report, WIDTH).picture(clip, SCALE)
    assert len(content) < MAX_BYTES, f"{picture} has {len(content):,} bytes"
    picture.write_bytes(content)
    print(f"{picture}: {len(content):,} bytes")


def reports(folder: Path, log: str) -> tuple[Path, Path]:
    """Of a run and of a simulation, made anew."""
    prompts, ran, simulated = folder / "bundled.jsonl", folder / "run.html", folder / "simulate.html"
    with PROMPTS_FILE.open(encoding="utf-8") as lines:
        prompts.write_text("".join(itertools.islice(lines, NUM_PROMPTS)), encoding="utf-8")
    for arguments in (
        ["run", str(prompts), "-o", str(folder / "answers.jsonl"), "--batch-size", NUM_SLOTS, "--report", str(ran)],
        ["simulate", log, "--slots", "4", "--load", "0.9", "--requests", "2000", "--report", str(simulated)],
    ):
        code = lengthwise(arguments)
        assert code == 0, f"lengthwise {' '.join(arguments)} ended with {code}"
    return ran, simulated


def main(log: str = "azure-2023-conversation", folder: str = "docs/images") -> None:
    program = find_browser()
    if program is None:
        sys.exit("There is no Chromium to show reports with; install it.")
    Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        ran, simulated = reports(Path(work), log)
        with Browser(program) as browser:
            cut(browser, ran, "slots", Path(folder) / "slots.png")
            cut(browser, simulated, "where", Path(folder) / "where.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
