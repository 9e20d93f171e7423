# Octavo: `make serve` talks to a real model, `make test` proves that it works.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CLIENTS ?= .venv-clients
HOST ?= 127.0.0.1
PORT ?= 8000
MODEL ?= smollm2-135m-instruct
ARGS ?=
TORCH := "torch>=2.11,<2.14"
CLIENT_PACKAGES := openai anthropic ollama langchain-openai litellm openai-agents
SOURCES := octavo tests benchmarks examples docs/make_reference.py setup.py .ci
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
TESTED := --constraint constraints.txt

.PHONY: serve chat test test-long test-gpu clients test-clients newest chaos rolling disconnects overload fuzz soak \
	attacks simulate determinism check fix reference bench clean

# Each stamp is remade only when what it installs has changed, as the files say: a second call is quick.
$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml constraints.txt setup.py $(wildcard octavo/ops/cpu/native/*)
	$(BIN)/python $(PIP_INSTALL) $(TESTED) $(TORCH)
	$(BIN)/python $(PIP_INSTALL) $(TESTED) -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python $(PIP_INSTALL) $(TESTED) -e ".[dev]"
	touch $@

# atheris has wheels for some Pythons only; without it inputs are made without looking at branches.
$(VENV)/.installed-fuzz: $(VENV)/.installed-dev
	$(BIN)/python $(PIP_INSTALL) $(TESTED) -e ".[fuzz]" || true
	touch $@

serve: $(VENV)/.installed  ## serve MODEL on HOST:PORT, with any further flags in ARGS
	exec $(BIN)/octavo serve $(MODEL) --host $(HOST) --port $(PORT) $(ARGS)

chat: $(VENV)/.installed  ## talk to it in the terminal
	exec $(BIN)/octavo chat $(ARGS)

test: check  ## lint, types, import floors, all quick tests
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu" $(ARGS)

test-long: $(VENV)/.installed-dev  ## the slow ones too: real-model matrix, 100,000 simulated requests
	$(BIN)/python -m pytest -m "not gpu" $(ARGS)

test-gpu: $(VENV)/.installed-dev  ## tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu $(ARGS)

chaos: $(VENV)/.installed-dev  ## kill and stop the core of a loaded server; a JSON result and a line PASS or FAIL
	$(BIN)/python -m tests.chaos.chaos $(ARGS)

rolling: $(VENV)/.installed-dev  ## one server takes over from another on one socket, again and again, under load
	$(BIN)/python -m tests.chaos.rolling $(ARGS)

soak: $(VENV)/.installed-dev  ## mixed traffic for minutes: nothing is held on to; ARGS="--minutes 30"; the same
	$(BIN)/python -m tests.soak.soak $(ARGS)

SECONDS ?= 60
fuzz: $(VENV)/.installed-fuzz  ## every door through which strangers' bytes come, SECONDS each; the same
	$(BIN)/python -m tests.fuzz.run --seconds $(SECONDS) $(ARGS)

ATTACKS ?= build/attacks.json
attacks: $(VENV)/.installed-dev  ## the list of attacks at full size; a JSON report and a line PASS or FAIL
	$(BIN)/python -m tests.attacks.attacks --report $(ATTACKS) $(ARGS)

disconnects: $(VENV)/.installed-dev  ## 30 % of the clients leave, at every moment; ARGS="--model tiny" for a model
	$(BIN)/python -m tests.chaos.disconnects $(ARGS)

overload: $(VENV)/.installed-dev  ## ten times as many requests as a server can answer
	$(BIN)/python -m tests.chaos.overload $(ARGS)

SEED ?= 1
simulate: $(VENV)/.installed-dev  ## SEED and the 199 after it on a simulated core; ARGS="--kind supervised" above it
	$(BIN)/python -m tests.simulation.simulate_many $(SEED) $(ARGS)

determinism: $(VENV)/.installed-dev  ## 10,000 requests alone and in company, on a CPU: every bit the same
	$(BIN)/octavo pull smollm2-135m-instruct
	$(BIN)/python -m tests.determinism.compare_many $(ARGS)

$(CLIENTS)/.installed: constraints.txt
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python $(PIP_INSTALL) $(TESTED) $(CLIENT_PACKAGES)
	touch $@

clients: $(CLIENTS)/.installed  ## an environment with the clients that test-clients runs

test-clients: $(VENV)/.installed-dev $(CLIENTS)/.installed  ## LangChain, LiteLLM, Agents SDK ... on a live server
	$(BIN)/octavo pull qwen2.5-coder-0.5b-instruct
	OCTAVO_CLIENTS_PYTHON=$(abspath $(CLIENTS))/bin/python $(BIN)/python -m pytest tests/clients $(ARGS)

newest: $(VENV)/.installed-dev $(CLIENTS)/.installed  ## install what is out today, write it to constraints.txt
	$(BIN)/python $(PIP_INSTALL) --upgrade --upgrade-strategy eager $(TORCH) -e ".[dev]"
	$(CLIENTS)/bin/python $(PIP_INSTALL) --upgrade --upgrade-strategy eager $(CLIENT_PACKAGES)
	$(BIN)/python .ci/write_constraints.py $(BIN)/python $(CLIENTS)/bin/python

check: $(VENV)/.installed-dev  ## ruff, mypy --strict, import floors, what shipped code never does
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/security/static_gate.py

fix: $(VENV)/.installed-dev  ## format and mend what can be mended
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

reference: $(VENV)/.installed-dev  ## write docs/reference/ anew from the code
	$(BIN)/python docs/make_reference.py

bench: $(VENV)/.installed-dev  ## core, sampler and serving benchmarks; results in benchmarks/results/
	$(BIN)/python benchmarks/run_all.py $(ARGS)

clean:
	rm -rf $(VENV) $(CLIENTS) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
