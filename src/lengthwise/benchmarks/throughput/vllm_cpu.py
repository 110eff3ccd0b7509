"""vLLM's CPU build, on the same weights and prompts, in a process of its own that waits while others run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from lengthwise.benchmarks.tables import num_cores
from lengthwise.benchmarks.throughput import vllm_worker
from lengthwise.benchmarks.throughput.contender import Contender
from lengthwise.benchmarks.throughput.sample import Sample
from lengthwise.benchmarks.throughput.workload import Setup
from lengthwise.errors import EngineError
from lengthwise.types import Request

PYTHON_VARIABLE = "LENGTHWISE_VLLM_PYTHON"  # of an environment that holds it, as `make .venv-vllm/installed` leaves one

_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; the number of blocks is given, so nothing is sized by it
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
_PAGE_TOKENS = 32  # the smallest that its CPU attention takes: wastes least of the budget
_CLOSE_S = 20.0


def find_python() -> Path | None:
    """The Python that has vLLM; None where the variable names none."""
    python = Path(os.environ.get(PYTHON_VARIABLE) or "")
    return python if python.is_file() else None


class VllmCpu(Contender):
    """First come, first served, with priorities left alone. Its pages hold the budget.

    Threads that wait for each other can be many times slower than one alone, so the warm-up tries both."""

    def __init__(self, name: str, title: str, setup: Setup, python: Path, threads: Sequence[int] = ()) -> None:
        super().__init__(name, title)
        self._setup = setup
        self._python = python
        self._threads = threads or sorted({1, num_cores()})
        self._rates: dict[int, float] = {}
        self._worker: Worker | None = None
        self._version: str | None = None

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"version": self._version, **self._arguments(), "requests_per_s_by_threads": self._rates}

    def warm_up(self, requests: Sequence[Request]) -> None:
        """Starts it with each number of threads, and keeps the fastest."""
        for num in self._threads:
            former, best = self._worker, max(self._rates.values(), default=0.0)
            newest = self._start(num)
            self.run(requests)
            self._rates[num] = round(self.run(requests).requests_per_s, 3)
            if former is not None:
                self._worker, slower = (newest, former) if self._rates[num] > best else (former, newest)
                slower.close()

    def run(self, requests: Sequence[Request]) -> Sample:
        workload, worker = self._setup.workload, self._worker or self._start(self._threads[0])
        started_s = time.perf_counter()
        prompts = self._setup.encoded(requests)
        encoding_s = time.perf_counter() - started_s
        lengths = workload.lengths or dict.fromkeys((request.id for request in requests), workload.max_tokens)
        said = worker.ask(
            {
                "prompts": prompts,
                "max_tokens": [lengths[request.id] for request in requests],
                "ignore_eos": workload.lengths is not None,
                "stop": list(self._setup.loaded.eos_token_ids) if workload.lengths is None else [],
            }
        )
        names = [request.id for request in requests]
        return Sample(
            encoding_s + said["wall_s"],  # what it takes from process to process is not counted against it
            dict(zip(names, said["num_tokens"], strict=True)),
            dict(zip(names, said["texts"], strict=True)),
            recomputed_tokens=None,
            num_put_back=said["num_put_back"],
            spans=[(encoding_s + start, encoding_s + end) for start, end in said["spans"]],
            peak_bytes=said["peak_bytes"],
        )

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
        self._worker = None

    def _start(self, num_threads: int) -> Worker:
        arguments = {"model": self._setup.model_path, **self._arguments()}
        self._worker = Worker(self._python, arguments, num_threads)
        self._version = self._worker.version
        return self._worker

    def _arguments(self) -> dict[str, Any]:
        """All but where the model lies on this machine, which is nobody's business but the process's."""
        setup = self._setup
        return {
            "dtype": str(setup.loaded.model.dtype).removeprefix("torch."),
            "enforce_eager": True,
            "block_size": _PAGE_TOKENS,
            "num_gpu_blocks_override": setup.num_pages(_PAGE_TOKENS) + 1,  # it keeps one for itself
            "max_num_seqs": setup.max_rows,
            "max_model_len": setup.request_tokens,
            "disable_log_stats": False,  # it tells when each request ran
        }


class Worker:
    """A process that runs `vllm_worker`. Raises EngineError, with what it printed last, when it ends."""

    def __init__(self, python: Path, arguments: Mapping[str, Any], num_threads: int) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [str(python), str(Path(vllm_worker.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **_ENVIRONMENT, "OMP_NUM_THREADS": str(num_threads)},
            text=True,
            start_new_session=True,
        )
        try:
            self.version = str(self.ask(arguments)["version"])
        except BaseException:
            self.close()
            raise

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has ended: then it has no answer
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise EngineError(f"vLLM's process ended: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """May be called twice."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(BrokenPipeError):  # a question that it never read
            for pipe in (self._process.stdin, self._process.stdout, self._log):
                if pipe is not None:
                    pipe.close()

    def _last_words(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_S)
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}, without a word."
