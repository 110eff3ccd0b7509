"""Where the time of the default goes: its own work beside the model's passes, and what the passes attain.

    LENGTHWISE_DATA_MIRROR=... python benchmarks/engine_profile.py [number of prompts]

Alpaca prompts with the lengths that Vicuna-7B wrote, a text predictor, the key/value budget of 16 whole answers. The
first table has seconds of one run: within the model's forward passes, and of our own work around them. The second has
steps of the row engine alone: what matrix products (by torch's profiler) and attention attain of what the machine gives
(a product of large matrices; a sum over more memory than its caches hold).
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from lengthwise.benchmarks.throughput.contenders import contenders
from lengthwise.cli.bench_throughput import make_predictors, open_ground, read_workload
from lengthwise.engines.transformers import ModelOptions, attention_kernel
from lengthwise.engines.transformers.engine import TransformersEngine
from lengthwise.engines.transformers.forward import RowModel
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.engines.transformers.pass_timer import PassTimer
from lengthwise.engines.transformers.sampling import Sampler
from lengthwise.loop import Loop

CONTEXT_TOKENS = 150
ROWS = (16, 64)
NUM_STEPS = 50
PRODUCTS = ("aten::mm", "mkldnn::_linear_pointwise")  # MKL's, oneDNN's
ATTAINED_N, ATTAINED_BYTES = 2048, 2**28


@contextmanager
def timed(into: dict[str, float], methods: dict[str, tuple[Any, str]]) -> Iterator[None]:
    """Within it, seconds spent in methods, or a module's functions, are added up by name, calls of one within another
    in both."""
    own = {(cls, name): getattr(cls, name) for cls, name in methods.values()}

    def watched(label: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            started_s = time.perf_counter()
            try:
                return method(*args, **options)
            finally:
                into[label] += time.perf_counter() - started_s

        return call

    for label, (cls, name) in methods.items():
        setattr(cls, name, watched(label, own[cls, name]))
    try:
        yield
    finally:
        for (cls, name), method in own.items():
            setattr(cls, name, method)


def own_work(num_prompts: int) -> LoadedModel:
    workload = read_workload(Path("alpaca-vicuna/eval-1000"), "recorded", 512, num_prompts)
    ground = open_ground(ModelOptions(), workload, None, None)
    predictors = make_predictors(ground, [], "alpaca-vicuna/train")
    default = contenders(ground.setup, predictors, is_quick=True)["default"]
    default.run(workload.requests[:64])
    seconds: dict[str, float] = defaultdict(float)
    model = type(ground.setup.loaded.model)
    methods = {
        "forward passes": (model, "forward"),
        "steps": (TransformersEngine, "_step"),
        "readings": (RowModel, "read"),
        "planning of steps": (RowModel, "_plan"),
        "sampling": (Sampler, "choose"),
        "scheduler": (Loop, "_decide"),
        "answers and progress": (Loop, "_record"),
        "intake, prediction included": (Loop, "_take_in_chunk"),
    }
    with timed(seconds, methods):
        sample = default.run(workload.requests)
    print(f"{sample.num_requests / sample.wall_s:.1f} requests/s, {sample.num_put_back} put back")
    for label, spent_s in seconds.items():
        print(f"{label:30} {spent_s:7.2f} s  {spent_s / sample.wall_s:6.1%}")
    own_s = sample.wall_s - seconds["forward passes"]
    print(f"{'own work, all of it':30} {own_s:7.2f} s  {own_s / sample.wall_s:6.1%} of {sample.wall_s:.2f} s")
    return ground.setup.loaded


def attained(loaded: LoadedModel) -> None:
    best_flops, best_bytes = attainable()
    print(f"attainable: {best_flops / 1e9:.0f} GFLOP/s, {best_bytes / 1e9:.1f} GB/s")
    config = loaded.model.config
    weights = sum(one.numel() for one in loaded.model.parameters())  # the embedding is the output's matrix as well
    kv_bytes = 2 * 4 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    for rows in ROWS:
        with PassTimer(loaded, CONTEXT_TOKENS, rows) as timer:
            step_s = timer.step_s(rows)
            seconds: dict[str, float] = defaultdict(float)
            with timed(seconds, {"attention": (attention_kernel, "attend")}):
                make_steps(timer, rows)
            attention_s = seconds["attention"] / NUM_STEPS
            with profile(activities=[ProfilerActivity.CPU]) as profiled:
                make_steps(timer, rows)
        own = {one.key: one.self_cpu_time_total / 1e6 / NUM_STEPS for one in profiled.key_averages()}
        products_s = sum(own.get(name, 0) for name in PRODUCTS)
        flops, read = 2 * weights * rows / products_s, kv_bytes * rows * CONTEXT_TOKENS / attention_s
        print(
            f"{rows} rows: step {step_s * 1e3:.2f} ms; matrix products {products_s * 1e3:.2f} ms, "
            f"{flops / best_flops:.0%} of attainable; attention {attention_s * 1e3:.2f} ms, "
            f"{read / best_bytes:.0%} of attainable"
        )


@torch.inference_mode()
def make_steps(timer: PassTimer, num_rows: int) -> None:
    for _ in range(NUM_STEPS):
        timer._step_s(timer._rows[:num_rows])


def attainable() -> tuple[float, float]:
    """FLOP/s of a large product and bytes/s of a large sum, the best of several."""
    a, b = torch.rand(ATTAINED_N, ATTAINED_N), torch.rand(ATTAINED_N, ATTAINED_N)
    large = torch.zeros(ATTAINED_BYTES // 4)
    product_s = min(seconds_of(lambda: torch.mm(a, b)) for _ in range(10))
    sum_s = min(seconds_of(large.sum) for _ in range(10))
    return 2 * ATTAINED_N**3 / product_s, ATTAINED_BYTES / sum_s


def seconds_of(work: Callable[[], Any]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


if __name__ == "__main__":
    attained(own_work(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
