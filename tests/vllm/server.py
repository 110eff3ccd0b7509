"""A real vLLM server with the bundled model, for tests and benchmarks."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from lengthwise.bundled import MODEL_DIR

NAME = "bundled"  # what the server calls its model
READY_S = 300  # it takes 25 to 55 s on two cores

PYTHON_VARIABLE = "LENGTHWISE_VLLM_PYTHON"
_OWN_PYTHON = Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python"

_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",  # with more, threads that wait for each other took 30 times as long in some runs
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_NO_USAGE_STATS": "1",
}


def find_python() -> Path | None:
    """The Python of the environment that holds vLLM: as the variable says, else that of `make test-vllm`."""
    python = Path(os.environ.get(PYTHON_VARIABLE) or _OWN_PYTHON)
    return python if python.is_file() else None


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server listens, and the file that it prints to."""

    url: str
    log: Path

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def version(self) -> str:
        return str(httpx2.get(f"{self.url}/version").json()["version"])

    @property
    def num_steps(self) -> int:
        """Passes through the model so far, each with one token of every row or with prompts."""
        metrics = httpx2.get(f"{self.url}/metrics").text
        counted = re.search(r"^vllm:iteration_tokens_total_count\S* (\S+)$", metrics, re.MULTILINE)
        assert counted is not None, "this version counts its steps under another name"
        return round(float(counted[1]))


@contextmanager
def running(
    python: Path, log: Path, max_num_seqs: int, options: Sequence[str] = (), level: str = "INFO"
) -> Iterator[Server]:
    """A server that is ready, with priorities, and `max_num_seqs` rows; killed at the end."""
    port = _free_port()
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--model", str(MODEL_DIR), "--served-model-name", NAME, "--dtype", "float32", "--enforce-eager"]
    command += ["--scheduling-policy", "priority", "--max-num-seqs", str(max_num_seqs), *options]
    environment = {**os.environ, **_ENVIRONMENT, "VLLM_LOGGING_LEVEL": level}
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        ) as process,
    ):
        try:
            server = Server(f"http://127.0.0.1:{port}", log)
            _wait_until_ready(process, server)
            yield server
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # asked to end, it may wait for its workers for ever


def _wait_until_ready(process: subprocess.Popen[bytes], server: Server) -> None:
    deadline_s = time.monotonic() + READY_S
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            if httpx2.get(f"{server.url}/health").status_code == 200:
                return
        except httpx2.HTTPError:
            time.sleep(0.5)
    last_lines = server.log.read_text(errors="replace")[-3000:]
    raise RuntimeError(f"The vLLM server is not ready after {READY_S} s, or ended:\n{last_lines}")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
