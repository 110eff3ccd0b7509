"""Writes the held-out prompts that the package ships: `python -m tools.bundled_model.prompts`."""

import json
from pathlib import Path

from tools.bundled_model.corpus import held_out_prompts

PROMPTS_PATH = Path(__file__).parents[2] / "src" / "lengthwise" / "bundled" / "prompts.jsonl"


def prompt_lines() -> str:
    """The file's text: one JSON object a line, with `id`, `prompt` and `family`."""
    rows = (
        {"id": f"held-out-{index:04d}", "prompt": prompt.text, "family": prompt.combination.family.name}
        for index, prompt in enumerate(held_out_prompts())
    )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_prompts() -> list[dict[str, str]]:
    """The shipped file's rows."""
    return [json.loads(line) for line in PROMPTS_PATH.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    PROMPTS_PATH.write_text(prompt_lines(), encoding="utf-8")
