"""What the paper's authors state: throughput of Vicuna-7B on Alpaca's prompts, by table and row.

`BLOG`: the figure of the first author's blog (arXiv 2305.13144's method). `REPOSITORY`: the README of the published
code (github.com/zhengzangw/Sequence-Scheduling), a later run.
"""

from __future__ import annotations

Figures = dict[str, float]

BLOG: dict[tuple[str, str], Figures] = {
    ("predictors", "vanilla"): {"samples_per_s": 1.22, "average_length": 377},
    ("predictors", "ground-truth"): {"samples_per_s": 2.52, "gain_vs_vanilla": 1.07, "average_length": 201},
    ("predictors", "pooling"): {"samples_per_s": 1.96, "gain_vs_vanilla": 0.61, "average_length": 216},
    ("predictors", "len"): {"samples_per_s": 2.10, "gain_vs_vanilla": 0.72, "average_length": 210},
    ("predictors", "po"): {"samples_per_s": 1.40, "gain_vs_vanilla": 0.15, "average_length": 328},
    ("predictors", "lora-mean"): {"samples_per_s": 1.77, "gain_vs_vanilla": 0.45, "average_length": 211},
    ("predictors", "lora-max"): {"samples_per_s": 2.27, "gain_vs_vanilla": 0.86, "average_length": 208},
    ("ablation", "none"): {"samples_per_s": 1.73, "gain_vs_vanilla": 0.42},
    ("ablation", "fcr"): {"samples_per_s": 1.76},
    ("ablation", "fcr+vbs"): {"samples_per_s": 2.22},
    ("ablation", "binning"): {"samples_per_s": 1.58},
    ("ablation", "binning+fcr"): {"samples_per_s": 1.86},
    ("ablation", "binning+fcr+vbs"): {"samples_per_s": 2.27, "gain_vs_vanilla": 0.86},
}

REPOSITORY: dict[tuple[str, str], Figures] = {
    ("predictors", "vanilla"): {"samples_per_s": 1.39, "average_length": 371, "effective_token_ratio": 0.339},
    ("predictors", "ground-truth"): {"samples_per_s": 2.69, "average_length": 196, "effective_token_ratio": 0.616},
    ("predictors", "po"): {"samples_per_s": 1.32},
    ("predictors", "lora-max"): {
        "samples_per_s": 2.30,
        "gain_vs_vanilla": 0.65,
        "average_length": 215,
        "effective_token_ratio": 0.472,
        "rerun_ratio": 0.165,
    },
    ("ablation", "binning"): {"samples_per_s": 1.64},
}
