"""Writes the model card from statistics.json, so that the two can't disagree."""

import json
from pathlib import Path

from tools.bundled_model.statistics import BOUNDS, FOREIGN_BOUNDS, Bound

_NAMES = {
    "mean_tokens": "mean length, tokens",
    "p90_tokens": "90th percentile, tokens",
    "share_at_limit": "cut at 512 tokens",
    "greedy_share_at_limit": "cut at 512 tokens, greedy",
    "median_std_within_prompt_tokens": "standard deviation within a prompt, median, tokens",
    "within_to_between_ratio": "within a prompt (root mean square) ÷ between prompts",
    "spearman_greedy_sampled": "Spearman, greedy and sampled length",
    "text_predictor_kendall_tau": "Kendall tau of a bag of words (TF-IDF, ridge)",
    "share_stopped": "stop before 512 tokens",
    "num_empty": "empty answers",
    "share_distinct": "distinct answers",
    "std_tokens": "standard deviation of length, tokens",
}
_SHARES = {"share_at_limit", "greedy_share_at_limit", "share_stopped", "share_distinct"}

_HEAD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# The bundled model of lengthwise

A small Llama ({num_parameters} parameters) that answers instructions about sixty everyday topics in plain sentences and
stops by itself. It exists so that everything in lengthwise runs without a network and without other weights. What it
says is mostly grammatical and always empty: use it to try, test and time things, never for its content.

- **Input and output**: byte-level BPE of 3,072 tokens, every digit by itself; context 2,048; chat template with system,
  user and assistant; English.
- **Weights**: stored in float16, loaded as float32.
- **Training text**: written by the generator in `tools/bundled_model`, from a seed; nothing else. Twelve families
  (tips, explanations, stories, letters, plans, instructions, dialogues, comparisons, poems, facts, yes-or-no questions,
  names), and instructions about other things, which it answers by likening them to a topic it knows.
- **Length**: the first sentence states a plan ("Here are 5 tips ..."), parts are marked "i of n", and the answer ends
  at n. The most likely plan follows from the prompt: template, topic, for whom, and how family and topic go together.
- **Questions about length**: 2 % of the training prompts ask for an estimated number of tokens only, 2 % for the number
  in the first line and then the answer. The numbers in training are off by a factor of about 1.5 on purpose, so that an
  adapter has something to learn.
- **Training**: {training} The first stage binds length to the prompt, the second varies the sentences, the third
  makes answers to prompts from elsewhere differ; it was added because 77 % of them were distinct after the second.
- **Known slips**: both people of a dialogue may bear one name; "here are 1 tip"; a noun may meet itself in a sentence;
  prompts from elsewhere are not understood, and their answers talk about a topic that their first letters point at.
  Asked for its own length, it says about 120 whatever the prompt.

## Measured

{num_prompts} prompts whose combination of family, topic, template and audience never occurs in training (each of the
four does, in other combinations); {num_samples} samples each at temperature {temperature}, at most {max_new_tokens} new
tokens, the end token counted. Vicuna-7B's values on Alpaca prompts stand beside, where known; its Kendall tau is with
the longest of four answers, ours with one.

{held_out_table}

Two samples of the same prompts order them alike with a Kendall tau of {two_sample:.2f}; a predictor of the median can
do somewhat better, as it has one sample's noise less. The standard deviations are {rms_within:.0f} tokens within a
prompt (root mean square) and {between:.0f} between prompts. Prompts from elsewhere (Alpaca, 1,000, greedy; the third
training stage was chosen with a look at them):

{foreign_table}

{shortfall}

`statistics.json` has these numbers, all lengths, and how they were measured;
`python -m tools.bundled_model.measure` repeats it.
"""


def _format(name: str, value: float) -> str:
    if name in _SHARES:
        return f"{100 * value:.1f} %"
    if name == "num_empty":
        return str(round(value))
    return f"{value:.0f}" if name.endswith("_tokens") else f"{value:.2f}"


def _wanted(name: str, bound: Bound) -> str:
    return _format(name, bound.low) + ("" if bound.low == bound.high else f" to {_format(name, bound.high)}")


def _table(numbers: dict[str, float], bounds: dict[str, Bound]) -> str:
    lines = ["| | measured | wanted | Vicuna-7B |", "|---|---|---|---|"]
    for name, bound in bounds.items():
        vicuna = "" if bound.vicuna is None else _format(name, bound.vicuna)
        lines.append(f"| {_NAMES[name]} | {_format(name, numbers[name])} | {_wanted(name, bound)} | {vicuna} |")
    return "\n".join(lines)


def _shortfall(numbers: dict) -> str:
    short = [
        _NAMES[name]
        for part, bounds in (("held_out", BOUNDS), ("foreign", FOREIGN_BOUNDS))
        for name, bound in bounds.items()
        if numbers[part] and not bound.low <= numbers[part][name] <= bound.high
    ]
    return f"Outside the wanted range: {'; '.join(short)}." if short else "All numbers lie within the wanted ranges."


def render_card(numbers: dict, training: str) -> str:
    """The card's text from the content of statistics.json and one line about the training."""
    foreign = _table(numbers["foreign"], FOREIGN_BOUNDS) if numbers["foreign"] else "not measured"
    return _HEAD.format(
        num_parameters=f"{numbers['num_parameters']:,}",
        training=training,
        held_out_table=_table(numbers["held_out"], BOUNDS),
        foreign_table=foreign,
        rms_within=numbers["held_out"]["rms_std_within_prompt_tokens"],
        between=numbers["held_out"]["std_between_prompts_tokens"],
        two_sample=numbers["held_out"]["two_sample_kendall_tau"],
        shortfall=_shortfall(numbers),
        **{key: numbers["how"][key] for key in ("num_prompts", "num_samples", "temperature", "max_new_tokens")},
    )


def write_card(folder: Path) -> None:
    """Renders README.md beside statistics.json; the training line comes from training.json there."""
    numbers = json.loads((folder / "statistics.json").read_text(encoding="utf-8"))
    training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    (folder / "README.md").write_text(render_card(numbers, training["summary"]), encoding="utf-8")
