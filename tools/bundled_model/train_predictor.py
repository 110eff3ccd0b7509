"""Trains the length predictor that ships with the bundled model, on that model's own answers:

    python -m tools.bundled_model.train_predictor

Prompts come from the generator: those of the families from the side that the model's training may use, and foreign
ones. Each is answered greedily and at temperature 0.7, and both lengths are learned from: a default must serve both,
and the two differ less than two samples do. It is checked on combinations that are held out, and on new foreign
prompts. The same model, recipe and version of torch give the same predictor.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from lengthwise.bundled import PREDICTOR_DIR
from lengthwise.estimates import LengthEstimates
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.constant import ConstantPredictor
from lengthwise.predictors.text.predictor import TextPredictor
from lengthwise.types import Completion, Request, SamplingParams
from tools.bundled_model import foreign
from tools.bundled_model.corpus import held_out_prompts, training_side_prompts
from tools.bundled_model.train import DEFAULT_OUT as MODEL_DIR


@dataclass(frozen=True)
class Recipe:
    """What the predictor depends on, beside the model. Counts are prompts; each is answered once a temperature."""

    num_family_prompts: int = 2_500
    num_foreign_prompts: int = 1_500  # other people's prompts are the job that it must serve: weighted above 16 %
    num_check_prompts: int = 300  # of either kind, none of them trained on
    temperatures: tuple[float, ...] = (0.0, 0.7)
    max_tokens: int = 512  # longer answers are censored
    seed: int = 30_000


@dataclass(frozen=True)
class Answers:
    """Requests and how long their answers were; `is_censored` where the limit cut them."""

    requests: list[Request]
    lengths: NDArray[np.float64]
    is_censored: NDArray[np.bool_]

    def __getitem__(self, rows: NDArray[np.bool_]) -> Answers:
        requests = [request for request, is_in in zip(self.requests, rows, strict=True) if is_in]
        return Answers(requests, self.lengths[rows], self.is_censored[rows])


def foreign_prompts(count: int, seed: int, unwanted: frozenset[str] = frozenset()) -> list[str]:
    """Distinct prompts about other things than the families' topics."""
    rng = random.Random(seed)
    texts: dict[str, None] = {}
    while len(texts) < count:
        text = foreign.make_prompt(rng).text
        if text not in unwanted:
            texts[text] = None
    return list(texts)


def ask(pipeline: Pipeline, name: str, texts: Sequence[str], recipe: Recipe) -> Answers:
    """One answer to each text at each temperature."""
    requests = [
        Request(f"{name}-{index}-{temperature}", text, SamplingParams(temperature), recipe.max_tokens)
        for temperature in recipe.temperatures
        for index, text in enumerate(texts)
    ]
    completions = pipeline.run(requests)
    failed = [completion for completion in completions if completion.error]
    if failed or len(completions) != len(requests):
        sys.exit(f"{len(failed)} of {len(requests)} requests failed: {failed[:1]}. Nothing is saved.")
    return _answers(requests, completions)


def _answers(requests: list[Request], completions: Sequence[Completion]) -> Answers:
    lengths = np.array([completion.completion_tokens for completion in completions], float)
    return Answers(requests, lengths, np.array([completion.finish_reason == "length" for completion in completions]))


def train(pipeline: Pipeline, recipe: Recipe) -> TextPredictor:
    """Ask, fit, check: the predictor with its figures in `card`."""
    family = [prompt.text for prompt in training_side_prompts(recipe.num_family_prompts, recipe.seed)]
    others = foreign_prompts(recipe.num_foreign_prompts, recipe.seed)
    learned = ask(pipeline, "train", [*family, *others], recipe)
    model = pipeline.engine.model
    predictor = TextPredictor.fit(learned.requests, learned.lengths, learned.is_censored, model=model, seed=recipe.seed)
    constant = ConstantPredictor.fit(learned.lengths, learned.is_censored, model=model)
    checks = {
        "held-out": [prompt.text for prompt in held_out_prompts(recipe.num_check_prompts)],
        "foreign": foreign_prompts(recipe.num_check_prompts, recipe.seed + 1, frozenset(others)),
    }
    figures = []
    for name, texts in checks.items():
        fresh = ask(pipeline, name, texts, recipe)
        figures += [_figures(name, temperature, fresh, predictor, constant) for temperature in recipe.temperatures]
    predictor.card = {"recipe": asdict(recipe), "figures": figures}
    return predictor


def _figures(
    prompts: str, temperature: float, answers: Answers, predictor: TextPredictor, constant: ConstantPredictor
) -> dict[str, str | float]:
    """Errors of the median, order, and what intervals hold, at one temperature. Cut answers count as their limit."""
    fresh = answers[np.array([request.sampling.temperature == temperature for request in answers.requests])]
    limits = np.array([request.max_tokens for request in fresh.requests], float)
    estimates = predictor.predict(fresh.requests).capped(limits)
    errors = np.abs(estimates.median - fresh.lengths)
    constant_errors = np.abs(constant.predict(fresh.requests).capped(limits).median - fresh.lengths)
    return {
        "prompts": prompts,
        "temperature": temperature,
        "num_answers": len(errors),
        "mean_tokens": round(float(fresh.lengths.mean()), 1),
        "mae_tokens": round(float(errors.mean()), 1),
        "constant_mae_tokens": round(float(constant_errors.mean()), 1),
        "acc_50": round(float((errors <= 50).mean()), 3),
        "acc_100": round(float((errors <= 100).mean()), 3),
        "kendall_tau": round(_tau(estimates.median, fresh.lengths), 3),
        "in_80_interval": round(_share_inside(estimates, fresh.lengths), 3),
        "at_most_p90": round(float((fresh.lengths <= estimates.quantile(0.9)).mean()), 3),
    }


def _tau(predicted: NDArray[np.float32], lengths: NDArray[np.float64]) -> float:
    """Kendall's tau; 0 where all lengths are equal, which have no order."""
    return float(np.nan_to_num(kendalltau(predicted, lengths).statistic))


def _share_inside(estimates: LengthEstimates, lengths: NDArray[np.float64]) -> float:
    return float(((lengths >= estimates.quantile(0.1)) & (lengths <= estimates.quantile(0.9))).mean())


def render_card(predictor: TextPredictor) -> str:
    """The figures as a page, to be read beside the weights."""
    learned_from, figures = predictor.learned_from, predictor.card["figures"]
    header = list(figures[0])
    rows = [header, ["---"] * len(header), *([str(row[name]) for name in header] for row in figures)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return (
        "# Length predictor of the bundled model\n\n"
        "Made by `python -m tools.bundled_model.train_predictor`: TF-IDF and ridge on log length, a distribution from\n"
        f"out-of-fold residuals. Learned from {learned_from.num_examples} answers, {learned_from.num_censored} of them "
        f"cut at the limit, of the model\n`{learned_from.model}`; for any other model it is not used.\n\n"
        f"Checked on answers to prompts that it has not seen:\n\n{table}\n\n"
        "`held-out` are combinations that the model's training has not seen, `foreign` prompts about other things.\n"
        "Errors are those of the median, in tokens; `constant_mae_tokens` is the median of all lengths instead.\n"
    )


def main() -> None:
    default = Recipe()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL_DIR, help="the bundled model's folder")
    parser.add_argument("--out", type=Path, default=PREDICTOR_DIR)
    parser.add_argument("--num-family-prompts", type=int, default=default.num_family_prompts)
    parser.add_argument("--num-foreign-prompts", type=int, default=default.num_foreign_prompts)
    parser.add_argument("--num-check-prompts", type=int, default=default.num_check_prompts)
    options = parser.parse_args()
    recipe = Recipe(options.num_family_prompts, options.num_foreign_prompts, options.num_check_prompts)
    with Pipeline(options.model, predictor="none", max_tokens=recipe.max_tokens, seed=recipe.seed) as pipeline:
        predictor = train(pipeline, recipe)
    predictor.save(options.out)
    card = render_card(predictor)
    (options.out / "README.md").write_text(card, encoding="utf-8")
    print(card)


if __name__ == "__main__":
    main()
