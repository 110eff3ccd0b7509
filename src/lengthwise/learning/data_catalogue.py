"""The public sets by name: where they come from, under which terms, and how their parts are joined.

Each part is pinned to a commit and a SHA-256. A set can have several recipes: the first for which the user's mirror
folder has all parts is taken, else the one whose parts have public addresses.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Join = Callable[[Sequence[Path]], Iterator[Row]]

CHARACTERS_A_TOKEN = 4.1  # in English answers; AlpacaEval's outputs are texts, their tokens were not counted

_GITHUB = "https://raw.githubusercontent.com"
_LENGTHS = f"{_GITHUB}/zhengzangw/Sequence-Scheduling/28df6d84b3928d9c0b47b79b54f4d8e2badea423/data"
_ALPACA = f"{_GITHUB}/tatsu-lab/stanford_alpaca/761dc5bfbdeeffa89b8bff5d038781a4055f796a"
_ALPACA_EVAL = f"{_GITHUB}/tatsu-lab/alpaca_eval/cd543a149df89434d8a54582c0151c0b945c3d20/results"
_AZURE = f"{_GITHUB}/Azure/AzurePublicDataset/790921015d50dd6aae7f7e47f39ba0e235ad6b08/data"
_MOONCAKE = f"{_GITHUB}/kvcache-ai/Mooncake/3cca71daccf2a7afb8fe3f0295358f70e3a69fdb/FAST25-release/traces"


@dataclass(frozen=True)
class Part:
    """One file: its place below a mirror folder, its SHA-256, and its public address, where it has one."""

    place: str
    sha256: str
    url: str | None = None


@dataclass(frozen=True)
class Recipe:
    """Parts, and how they become rows with a prompt and a length; without `join` the one part is the set itself."""

    parts: tuple[Part, ...]
    join: Join | None = None

    @property
    def is_public(self) -> bool:
        return all(part.url for part in self.parts)


@dataclass(frozen=True)
class Dataset:
    """A set that `lengthwise data` knows."""

    about: str
    licence: str
    num_rows: int
    recipes: tuple[Recipe, ...]
    has_prompts: bool = True


# -- Alpaca's prompts with Vicuna's lengths --------------------------------------------------------------------

_PROMPTS = Part(
    "alpaca_data.json",
    "2eddafc6b977608d778aaab8dfc7e50e547b3af9826dfb9e909d9fc362e4a419",
    f"{_ALPACA}/alpaca_data.json",
)
_TRAIN = Part(
    "alpaca-train-10k-length.json",
    "1821a253de3a463eabad275f413816c0c102ed4cd0e14f4f8e662f508045efb0",
    f"{_LENGTHS}/alpaca-train-10k-length.json",
)
_VALIDATION = Part(
    "alpaca-val-10k-length.json",
    "3db0410a0b9cfaf967965b8bd9c25f530dc8c035e81d2117a0f27c64633ed99a",
    f"{_LENGTHS}/alpaca-val-10k-length.json",
)


def join_alpaca(paths: Sequence[Path], num_rows: int) -> Iterator[Row]:
    """Lengths with their prompts: a length's id counts Alpaca's rows from 1."""
    lengths, prompts = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
    for row in lengths[:num_rows]:
        prompt = prompts[int(row["id"]) - 1]
        samples = {name: row[name] for name in sorted(row) if name.startswith("L_t")}
        yield {
            "id": row["id"],
            "instruction": prompt["instruction"],
            "input": prompt["input"],
            "L_gt": row["L_gt"],
            **samples,
        }


def _alpaca(about: str, lengths: Part, num_rows: int, *ready: Part) -> Dataset:
    joined = Recipe((lengths, _PROMPTS), partial(join_alpaca, num_rows=num_rows))
    return Dataset(about, "CC BY-NC 4.0", num_rows, (*(Recipe((part,)) for part in ready), joined))


# -- AlpacaEval: answers of many models ------------------------------------------------------------------------

_EVAL_PROMPTS = Part("alpaca-eval/prompts.json", "9a58028ad5f26208791fb6463be216a71f54a8dd5c0d0963d8c3a5cb7c439c3f")
_EVAL_LENGTHS = Part("alpaca-eval/lengths.csv", "b229b12512c8115f1c436fe562a690e086428e011c0fdf5f8e02ed98942e4d51")
_EVAL_SHA256 = {
    "Meta-Llama-3-70B-Instruct": "d88208d379e6ece0cfa923be521b068a557f7bd84fdc5568d6151918d6004d45",
    "Mistral-7B-Instruct-v0.2": "d4536ee76a8bfbff745b220da249c6f331242b73b63b8ce18d0f79c234959c36",
    "Qwen1.5-7B-Chat": "cb1e7906f99e2e5c586aec8169af3e70a27931ca033c9a3be7dcf63e1e61bae7",
    "alpaca-7b": "21048628f20187affc7d9c9e756d9618e08c4991fc8a48184612eb484565c5db",
    "claude-3-opus-20240229": "ba0cf4f5853e693cfd84af2fc763d4cce2f527f9d15581a9bd1a9cc2981b8387",
    "gemma-7b-it": "fc3bbec3647638f35409ab726229fdc582b1f8b0d0c41a5c01171e883e0aa66c",
    "gpt-4o-2024-05-13": "653c131d58e8d5802203c85e80ca3fb4b378f22e2a0280ad5cd910ff0bee9535",
    "gpt4": "9c5149c146fadc99285f23abbaec2a62ba94ffa35c1dddacb70686571d9d780e",
    "llama-2-13b-chat-hf": "75ff67385486aef7c93ef5cf57ca29d2fc377b04ae3cb71fe107d7062948647f",
    "tulu-2-dpo-7b": "037fd61aff2b9c7ddf46dea0d114a2267456342f466bcf22faecf2b2ab2dd36d",
    "vicuna-13b": "9d69b499511ce24f14490d9387ea9dbc494db9c2074ecd580ec2ff16e3cb2448",
    "vicuna-7b": "c7cf62e384503eb314f537768b7b816340728b77585cabccee343d634003259a",
}


def join_alpaca_eval(paths: Sequence[Path], model: str) -> Iterator[Row]:
    """One model's answers, from the counted characters of all."""
    prompts = json.loads(paths[0].read_text(encoding="utf-8"))
    with paths[1].open(encoding="utf-8", newline="") as file:
        counted = {int(row["idx"]): int(row["out_chars"]) for row in csv.DictReader(file) if row["model"] == model}
    for prompt in prompts:
        yield _eval_row(prompt["idx"], prompt["instruction"], counted[prompt["idx"]])


def join_outputs(paths: Sequence[Path]) -> Iterator[Row]:
    """The same from the model's answers themselves."""
    for index, row in enumerate(json.loads(paths[0].read_text(encoding="utf-8"))):
        yield _eval_row(index, row["instruction"], len(row["output"]))


def _eval_row(index: int, prompt: str, num_characters: int) -> Row:
    return {"id": str(index), "prompt": prompt, "length": max(1, round(num_characters / CHARACTERS_A_TOKEN))}


def _alpaca_eval(model: str, sha256: str) -> Dataset:
    outputs = Part(f"{model}-model_outputs.json", sha256, f"{_ALPACA_EVAL}/{model}/model_outputs.json")
    counted = Recipe((_EVAL_PROMPTS, _EVAL_LENGTHS), partial(join_alpaca_eval, model=model))
    about = f"AlpacaEval prompts, answers of {model}; characters ÷ {CHARACTERS_A_TOKEN}"
    return Dataset(about, "CC BY-NC 4.0", 805, (counted, Recipe((outputs,), join_outputs)))


# -- traces: arrivals and lengths, no prompts ------------------------------------------------------------------


def _trace(about: str, licence: str, num_rows: int, part: Part) -> Dataset:
    return Dataset(about, licence, num_rows, (Recipe((part,)),), has_prompts=False)


CATALOGUE: dict[str, Dataset] = {
    "alpaca-vicuna/train": _alpaca(
        "Alpaca prompts, Vicuna-7B's lengths at temperatures 0, 0.3, 0.5, 0.7, cut at 512",
        _TRAIN,
        10_000,
        Part("alpaca-vicuna/train.jsonl", "b39554c759645eb187b631d352cb0d4e85844dc64884c091d594a119697f8738"),
    ),
    "alpaca-vicuna/eval-1000": _alpaca(
        "Alpaca prompts with Vicuna-7B's lengths, the first 1,000 rows of the validation file: what the paper's "
        "repository is scored on",
        _VALIDATION,
        1_000,
        Part("alpaca-vicuna/eval-1000.jsonl", "84b533ce23a4f8d1f949b85130738a552f33062daa6da6a36ac458fdd7b68a1f"),
    ),
    "alpaca-vicuna/validation": _alpaca(
        "Alpaca prompts with Vicuna-7B's lengths, the whole validation file", _VALIDATION, 10_000
    ),
    **{f"alpaca-eval/{model}": _alpaca_eval(model, sha256) for model, sha256 in _EVAL_SHA256.items()},
    "traces/azure-2023-conversation": _trace(
        "arrivals, input and output tokens of a production service, chats",
        "CC BY 4.0",
        19_366,
        Part(
            "traces/azure-2023-conversation.csv",
            "2f1e5b666d4e3055fdbba98598ce2ec307767b9064e03e2fa46676dbcc7d0bf8",
            f"{_AZURE}/AzureLLMInferenceTrace_conv.csv",
        ),
    ),
    "traces/azure-2023-code": _trace(
        "arrivals, input and output tokens of a production service, code",
        "CC BY 4.0",
        8_819,
        Part(
            "traces/azure-2023-code.csv",
            "54e9a6d2a4bd06ba1e060304b900abbc74cbea53de96506e60fe5bb4f2277fb6",
            f"{_AZURE}/AzureLLMInferenceTrace_code.csv",
        ),
    ),
    "traces/mooncake-conversation": _trace(
        "arrivals, input and output tokens, hashes of shared prefixes",
        "Apache-2.0",
        12_031,
        Part(
            "traces/mooncake-conversation.jsonl",
            "b8cbb061a85206d729d91cdc2981f43c9e0d99209dce588d3af5f7934408b9df",
            f"{_MOONCAKE}/conversation_trace.jsonl",
        ),
    ),
    # Drawn or joined from larger releases: there is no public file with these bytes, a mirror must hold it.
    "traces/servegen-deepseek-r1-peak-hour": _trace(
        "arrivals and tokens of a reasoning model: a draw from published distributions, input and output independent",
        "Apache-2.0",
        132_423,
        Part(
            "traces/servegen-deepseek-r1-peak-hour.csv.gz",
            "e9cef41d032d74fb56d98b59eb43b14dea8c84932a662662f307c02614f51466",
        ),
    ),
    "traces/lmsys-ssjf-predictions": _trace(
        "lengths of Vicuna-13B on LMSYS prompts with a published BERT predictor's class",
        "Apache-2.0",
        85_482,
        Part(
            "traces/lmsys-ssjf-predictions.csv",
            "79b1c1337d1c45dcef07dbdf725c0e103aa8cd13bb08e5ebec7dadb916af4a6e",
        ),
    ),
}
