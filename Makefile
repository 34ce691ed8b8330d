# Everything happens in $(VENV), which is made on first use; remove it to start anew.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TESTING := $(VENV)/.installed-for-tests

.PHONY: run test test-all lint types docs bench starter gpu clean
.DEFAULT_GOAL := run

# Modules are compiled when they are first imported: most of what is installed never is, and compiling it all takes a minute.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(TESTING): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[test,dev]'
	touch $(INSTALLED) $@

run: $(INSTALLED)  ## write with the starter, train on the built-in text, write, score: three minutes on two cores, once installed
	$(BIN)/reformer generate --run starter --prompt "She opened the door" --max-tokens 300
	$(BIN)/reformer train python-reference --minutes 2
	$(BIN)/reformer generate --prompt "The with statement" --max-tokens 300
	$(BIN)/reformer evaluate perplexity

test: $(TESTING)  ## every test but the slow and the GPU ones, two at a time
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-all: $(TESTING)  ## the slow ones too, and those that need the public harness
	$(PIP) -e '.[lm-eval]'
	$(BIN)/python -m pytest -m "not gpu"

lint: $(TESTING)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=models:. $(BIN)/lint-imports

types: $(TESTING)
	$(BIN)/mypy

docs: $(TESTING)  ## write docs/help.md and configs/README.md from the program
	$(BIN)/python docs/write_reference.py

bench: $(TESTING)  ## time us and the peers on this machine; appends to benchmarks/results.csv
	$(PIP) -e '.[peers]'
	$(BIN)/python benchmarks/train_step.py --lengths 4096 16384 65536
	$(BIN)/python benchmarks/parts.py

# Hours on two cores; killed, the same line goes on. UNSEEN: files among them of which nothing is to be trained on.
starter: $(INSTALLED)  ## train models/starter anew: make starter TEXTS="folders of .txt" [UNSEEN="files"] [ARGS="--set ..."]
	$(BIN)/python benchmarks/starter_texts.py runs/starter-texts $(TEXTS) --unseen $(UNSEEN)
	test -e runs/starter/config.yaml && from=--resume || from="runs/starter-texts --config starter"; \
	$(BIN)/reformer train $$from --run runs/starter $(ARGS)
	$(BIN)/reformer export runs/starter models/starter --weights int8 --overwrite --license mit --data-license "public domain"

# Without a package registry, in an environment that has all of it: PYTHONPATH=.:models make gpu BIN=... TESTING= PIP=true
gpu: $(TESTING)  ## on a GPU machine: check, then time; under nine minutes
	$(PIP) -e '.[peers]'
	timeout 180 $(BIN)/python -m pytest -m gpu -q tests/gpu tests/reformer; checked=$$?; \
	$(BIN)/python benchmarks/gpu.py --minutes 5.5; timed=$$?; exit $$((checked ? checked : timed))

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
