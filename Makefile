# Everything happens in $(VENV), which is made on first use; remove it to start anew.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: run test test-all lint types docs bench gpu clean
.DEFAULT_GOAL := run

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,dev]'
	touch $@

run: $(INSTALLED)  ## train on the built-in text, generate, evaluate: about five minutes on two cores
	$(BIN)/reformer train python-reference --minutes 3
	$(BIN)/reformer generate --prompt "The with statement" --max-tokens 400
	$(BIN)/reformer evaluate perplexity

test: $(INSTALLED)  ## every test but the slow and the GPU ones
	$(BIN)/python -m pytest

test-all: $(INSTALLED)  ## the slow ones too
	$(BIN)/python -m pytest -m "not gpu"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

docs: $(INSTALLED)  ## write docs/help.md and configs/README.md from the program
	$(BIN)/python docs/generate.py

bench: $(INSTALLED)  ## time us and the peers on this machine; appends to benchmarks/results.csv
	$(BIN)/python benchmarks/train_step.py --lengths 4096 16384 65536

gpu: $(INSTALLED)  ## on a GPU machine: check, then time
	$(BIN)/python -m pytest -m gpu
	$(BIN)/python benchmarks/train_step.py --device cuda --lengths 16384 65536 524288

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
