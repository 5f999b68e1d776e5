# Two commands do everything: `make demo` and `make test`. Both set the project up first, once, into $(VENV).
#
#   make demo        evaluate the committed reference checkpoint on freshly drawn synthetic ECGs (no data set needed)
#   make test        run the tests but the slow ones (those that need real recordings skip unless HEARTLLM_DATA names them)
#   make test-slow   run the slow ones: whole sizes, many kills, the commands of the documents
#   make torture     kill every stage KILLS times in all and compare with an undisturbed run (half an hour; resumable)
#                    -> reports/faults.md
#   make fuzz        100,000 spoilt files of ten kinds against their readers (an hour of a core; resumable) -> reports/fuzz.md
#   make bench       benchmark suite, growth curves and profiles, on an idle machine -> reports/performance
#   make lint        formatting, lint, types, layers
#   make reference   train the reference checkpoint again (hours; resumable)
#   make paper       train and evaluate every row of the paper's tables (days of a core; resumable), then make report
#   make report      tables, figures, claims and results page again from the frozen runs (minutes)
#   make setup       only set up
#
# Variables: PYTHON (python3.11), VENV (.venv), HEARTLLM_DATA, DEMO (.cache/demo), DEMO_RECORDINGS, DEMO_SEED, PYTEST_ARGS,
# TEST_JOBS (processes that run tests; as many as there are cores, four at most), KILLS (300), SEED (0; another one kills
# at other moments).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up

# One recording in ten is the synthetic hospital's test split, which is what the suites ask about. No training uses this seed.
DEMO_RECORDINGS ?= 1000
DEMO_SEED ?= 2026
DEMO ?= .cache/demo
CHECKPOINT ?= reports/reference/checkpoint
PYTEST_ARGS ?=
TEST_JOBS ?= auto
# A file's tests stay in one process, and so share what the file has trained or written.
PYTEST := $(BIN)/python -m pytest -n $(TEST_JOBS) --maxprocesses 4 --dist loadfile

# Small models on few cores: one thread a process is the fastest, and makes results independent of the machine.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Where the command lines keep what they fetch: WordNet, for METEOR.
export HEARTLLM_CACHE ?= $(abspath .cache)
# The real recordings, where they lie beside the checkout.
HEARTLLM_DATA ?= $(abspath $(wildcard ../shared/data))
ifneq ($(HEARTLLM_DATA),)
export HEARTLLM_DATA
endif

.PHONY: help setup demo test test-slow torture fuzz bench lint format reference paper report clean

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

setup: $(STAMP)

# Written last, so that an interrupted set-up starts again; newer requirements start it again as well.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c '' 2>/dev/null || { echo "error: PYTHON=$(PYTHON) does not run. Install Python 3.11, or name one: make setup PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "error: $$($(PYTHON) --version) found, but the tested full stack is for Python 3.11. Name one: make setup PYTHON=/path/to/python3.11 (the base install runs on 3.10 to 3.13: pip install .)" >&2; exit 2; }
	@test -x $(BIN)/python || { echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing the pinned requirements into $(VENV) (about 2 GB and four minutes the first time)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@$(BIN)/heartllm-eval fetch-wordnet || echo "note: WordNet could not be fetched; METEOR will be named meteor-nowordnet" >&2
	@touch $@

demo: $(STAMP)
	@test -d $(CHECKPOINT) || { echo "error: $(CHECKPOINT): no such checkpoint. Train it with: make reference" >&2; exit 1; }
	rm -rf $(DEMO)
	$(BIN)/heartllm data synth a --recordings $(DEMO_RECORDINGS) --seed $(DEMO_SEED) --out $(DEMO)/data
	$(BIN)/heartllm-eval run --model heartllm --model_args checkpoint=$(CHECKPOINT) --tasks synthetic_a_qa,synthetic_a_reports --controls --data_root $(DEMO)/data --output_path $(DEMO)/run

test: $(STAMP)
	$(PYTEST) --durations=15 -m "not slow" $(or $(PYTEST_ARGS),--ignore tests/benchmarks)
ifeq ($(PYTEST_ARGS),)
	@# What is measured runs alone.
	$(BIN)/python -m pytest -m "not slow" tests/benchmarks
endif

test-slow: $(STAMP)
	$(PYTEST) --durations=15 -m slow $(or $(PYTEST_ARGS),--ignore tests/benchmarks)
ifeq ($(PYTEST_ARGS),)
	$(BIN)/python -m pytest -m slow tests/benchmarks
endif

# Goes on after the last whole case of an earlier call with the same SEED. TORTURE_OUT=FOLDER leaves the committed page
# alone; TORTURE_ARGS="--stages tokenizer,run --seconds 600" does a part of it.
KILLS ?= 300
SEED ?= 0
TORTURE_ARGS ?=
TORTURE_OUT ?= reports
torture: $(STAMP)
	HF_HUB_OFFLINE=1 MPLBACKEND=Agg $(BIN)/python tests/faults/torture.py --kills $(KILLS) --seed $(SEED) --work .cache/torture --out $(TORTURE_OUT) $(TORTURE_ARGS)

# The same CASES and SEED go on where they stopped; cases at fault lie in .cache/fuzz/faults, each with what makes it again.
CASES ?= 100000
fuzz: $(STAMP)
	$(BIN)/python tests/fuzz/fuzz.py --cases $(CASES) --seed $(SEED) --table reports/fuzz

# BENCH_ARGS=--quick and BENCH_TESTS="-m 'not slow'" shorten it; BENCH_OUT=FOLDER leaves the committed page alone.
BENCH_ARGS ?=
BENCH_TESTS ?=
BENCH_OUT ?= reports/performance
bench: $(STAMP)
	@mkdir -p .cache
	$(BIN)/python -m pytest tests/benchmarks $(BENCH_TESTS) --benchmark-json=.cache/benchmarks.json
	$(BIN)/python -m heartllm.performance.page --suite .cache/benchmarks.json --out $(BENCH_OUT) $(BENCH_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: $(STAMP)
	PATH="$(abspath $(BIN)):$$PATH" reports/reference/train.sh

# PAPER_ARGS="--jobs 2", "--only heartllm,clip", "--missing", "--dry_run", "--size full": see heartllm-eval paper --help.
PAPER_ARGS ?=
paper: $(STAMP)
	$(BIN)/heartllm-eval paper reports/paper.toml --work runs/paper $(PAPER_ARGS)
	$(BIN)/heartllm-eval report

report: $(STAMP)
	$(BIN)/heartllm-eval report

clean:
	rm -rf $(DEMO) .tox .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks dist build
