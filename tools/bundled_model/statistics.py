"""From measured lengths to the numbers of the model card, and the bounds in which they must lie."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau, spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

MAX_NEW_TOKENS = 512


@dataclass(frozen=True)
class Bound:
    """A number's range, both ends allowed, and Vicuna-7B's value where the same thing is known of it."""

    low: float
    high: float
    vicuna: float | None = None


# Vicuna-7B on 10,000 Alpaca prompts, cut at about 512; its mean, p90 and share at the limit are those at temperature 0.
BOUNDS = {
    "mean_tokens": Bound(110, 140, 126),
    "p90_tokens": Bound(240, 320, 281),
    "share_at_limit": Bound(0.005, 0.025, 0.010),
    "greedy_share_at_limit": Bound(0.0, 0.05),
    "median_std_within_prompt_tokens": Bound(15, 45, 34),
    "within_to_between_ratio": Bound(0.0, 0.6),
    "spearman_greedy_sampled": Bound(0.75, 1.0),
    "text_predictor_kendall_tau": Bound(0.45, 0.7, 0.54),
}
FOREIGN_BOUNDS = {
    "share_stopped": Bound(0.9, 1.0),
    "num_empty": Bound(0, 0),
    "share_distinct": Bound(0.9, 1.0),
    "std_tokens": Bound(50, MAX_NEW_TOKENS),
}


def held_out_statistics(greedy: np.ndarray, sampled: np.ndarray) -> dict[str, float]:
    """Statistics of greedy lengths (prompts,) and sampled lengths (prompts, samples), in tokens with the end token.

    A length of MAX_NEW_TOKENS counts as cut. The spread within a prompt is the sample standard deviation (one degree
    of freedom less), the spread between prompts that of the prompts' means.
    """
    within = sampled.std(axis=1, ddof=1)
    rms_within = float(np.sqrt((within**2).mean()))
    between = float(sampled.mean(axis=1).std(ddof=1))
    return {
        "mean_tokens": float(sampled.mean()),
        "median_tokens": float(np.median(sampled)),
        "p90_tokens": float(np.quantile(sampled, 0.9)),
        "share_at_limit": float((sampled >= MAX_NEW_TOKENS).mean()),
        "greedy_mean_tokens": float(greedy.mean()),
        "greedy_share_at_limit": float((greedy >= MAX_NEW_TOKENS).mean()),
        "median_std_within_prompt_tokens": float(np.median(within)),
        "rms_std_within_prompt_tokens": rms_within,
        "std_between_prompts_tokens": between,
        "within_to_between_ratio": rms_within / between,
        "spearman_greedy_sampled": float(np.mean([spearmanr(greedy, column).statistic for column in sampled.T])),
    }


def text_predictor_tau(
    fit_prompts: list[str], fit_lengths: np.ndarray, prompts: list[str], sampled: np.ndarray
) -> dict[str, float]:
    """Kendall tau between one sampled length and a bag of words' prediction; the mean over the samples."""
    predictor = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), Ridge(alpha=1.0))
    predictor.fit(fit_prompts, np.log(fit_lengths))
    predicted = predictor.predict(prompts)
    return {
        "text_predictor_kendall_tau": float(np.mean([kendalltau(predicted, column).statistic for column in sampled.T])),
        "text_predictor_mae_tokens": float(np.abs(np.exp(predicted)[:, None] - sampled).mean()),
        "two_sample_kendall_tau": float(kendalltau(sampled[:, 0], sampled[:, 1]).statistic),
    }


def foreign_statistics(answers: list[list[int]], lengths: np.ndarray) -> dict[str, float]:
    """How greedy answers to prompts from elsewhere behave; `answers` are token ids without the end token."""
    return {
        "num_prompts": len(answers),
        "mean_tokens": float(lengths.mean()),
        "share_stopped": float((lengths < MAX_NEW_TOKENS).mean()),
        "num_empty": sum(not answer for answer in answers),
        "share_distinct": len(set(map(tuple, answers))) / len(answers),
        "std_tokens": float(lengths.std(ddof=1)),
    }


def misses(numbers: dict[str, float], bounds: dict[str, Bound]) -> list[str]:
    """One line for each number outside its bound."""
    return [
        f"{name} is {numbers[name]:.4g}, not within [{bound.low}, {bound.high}]"
        for name, bound in bounds.items()
        if not bound.low <= numbers[name] <= bound.high
    ]
