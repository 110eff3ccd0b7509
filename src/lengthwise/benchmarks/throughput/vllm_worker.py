"""vLLM in a process and an environment of its own, where this package is not installed: lines of JSON in and out.

First line in: the engine's arguments. Out: `{"version": ...}` when it is ready. Each line in then, `prompts` (lists of
token ids), `max_tokens` (one each), `ignore_eos` and `stop` (token ids), is answered by a line: seconds, tokens and
texts in order, when each was begun and ended (seconds since the start), how often one was put back, and the process's
highest resident memory meanwhile. Ends with its input.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    sys.path.pop(0)  # this folder, whose modules are no one's here
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what vLLM prints is no answer
    arguments = json.loads(sys.stdin.readline())

    import vllm  # type: ignore[import-not-found, unused-ignore]

    llm = vllm.LLM(**arguments)
    _say(answers, {"version": vllm.__version__})
    for line in sys.stdin:
        _say(answers, _answered(vllm, llm, json.loads(line)))


def _answered(vllm: Any, llm: Any, asked: dict[str, Any]) -> dict[str, Any]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    prompts = [{"prompt_token_ids": prompt} for prompt in asked["prompts"]]
    started_s, started_monotonic_s = time.perf_counter(), time.monotonic()
    sampling = [
        vllm.SamplingParams(temperature=0, max_tokens=num, ignore_eos=asked["ignore_eos"], stop_token_ids=asked["stop"])
        for num in asked["max_tokens"]
    ]
    outputs = llm.generate(prompts, sampling, use_tqdm=False)
    wall_s = time.perf_counter() - started_s
    metrics = [output.metrics for output in outputs]
    return {
        "wall_s": wall_s,
        "num_tokens": [len(output.outputs[0].token_ids) for output in outputs],
        "texts": [output.outputs[0].text for output in outputs],
        "spans": [[one.scheduled_ts - started_monotonic_s, one.last_token_ts - started_monotonic_s] for one in metrics],
        "num_put_back": sum(one.num_preemptions for one in metrics),
        "peak_bytes": _peak_bytes(),
    }


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def _say(answers: Any, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
