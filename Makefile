# Every target makes the environment when it is missing or older than what it is made from, and reuses it otherwise.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LATEST ?= .venv-latest
PORT ?= 5000
# Hundreds of processes import the package; without its bytecode each would compile it again.
unexport PYTHONDONTWRITEBYTECODE
# Whole files of tests side by side: many share what they started. Tests of Ray and MLflow mostly wait for processes to
# come up, so that three runs of tests keep two cores busy.
SIDE_BY_SIDE ?= --numprocesses 3 --dist loadfile --no-loadscope-reorder

.PHONY: help search test test-fast test-latest lint format bench docs ui demo clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 20

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): about 7 GB and three minutes the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

search: $(READY) ## Search on the embedded digits: best configuration, table, how to open MLflow
	$(BIN)/colotride search --dataset digits --groups margins learning-rate weighting readings phases mining --verdict-seeds 3:12 --run.evaluation.queries 256

test: $(READY) ## Run all tests
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-fast: $(READY) ## Run the tests that need neither processes nor whole trainings: three minutes
	$(BIN)/python -m pytest -m "not slow" --numprocesses logical --maxprocesses 4 --dist loadfile

test-latest: ## Run all tests on the newest versions that the package index serves, in .venv-latest
	@test -x $(LATEST)/bin/python || $(PYTHON) -m venv $(LATEST)
	@echo "Installing into $(LATEST): about 7 GB and three minutes the first time"
	@$(LATEST)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager --editable '.[dev]'
	@echo "What differs from constraints.txt (<) here (>):"
	@$(LATEST)/bin/python -m pip freeze --exclude-editable | sort > $(LATEST)/versions.txt
	@sort constraints.txt | diff - $(LATEST)/versions.txt || true
	$(LATEST)/bin/python -m pytest $(SIDE_BY_SIDE)

lint: $(READY) ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## Repair style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## Measure speed on this machine, as ratios: about four minutes
	$(BIN)/colotride benchmark step

docs: $(READY) ## Build the documentation into site/
	$(BIN)/python docs/generate.py
	$(BIN)/zensical build --strict

ui: $(READY) ## Open MLflow's pages of all runs on 127.0.0.1:5000 (PORT=... for another port)
	@echo "Runs and their scores: http://127.0.0.1:$(PORT)/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=scores"
	$(BIN)/mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port $(PORT)

demo: $(READY) ## Train two small models in a minute, and show in a browser what an attack does to their results
	$(BIN)/colotride train --dataset digits --defense natural --no-track --directory runs/demo/natural
	$(BIN)/colotride train --dataset digits --defense hm --no-track --directory runs/demo/robust
	$(BIN)/colotride demo --model runs/demo/robust --against runs/demo/natural

clean: ## Remove the environment; runs and mlflow.db stay
	rm -rf $(VENV)
