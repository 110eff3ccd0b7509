"""One vLLM server for all tests here: two rows, priorities, a log with all details."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vllm.server import Server, find_python, running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    python = find_python()
    if python is None:
        pytest.skip("There is no vLLM here; `make test-vllm` makes an environment with it.")
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    options = ["--enable-log-requests", "--enable-log-outputs"]
    with running(python, log, max_num_seqs=2, options=options, level="DEBUG") as started:
        yield started
