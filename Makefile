# Two commands are enough: `make run` and `make test`.

PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help run serve test check format bench demo-client clean

help: ## Show this list
	@echo "Portfolio Backend: a chat room for your portfolio site. Settings are in .env."
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F '\t' '{ printf "  make %-12s %s\n", $$1, $$2 }'

run: .venv/run .env ## Serve on http://localhost:8000 and start again whenever the code changes
	@$(BIN)/python -m app --reload

serve: .venv/prod .env ## Serve without watching the code (several processes: WORKERS=4 make serve, with Redis)
	@exec $(BIN)/python -m app

test: .venv/dev ## Run all tests, two at a time because many only wait (about eight minutes)
	@$(BIN)/python -m pytest -n 2

check: .venv/dev ## Check format, style and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy --strict app tests

format: .venv/dev ## Put the code into shape
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: .venv/run ## Measure throughput, latency and memory (half a minute)
	@$(BIN)/python tests/bench/bench.py

demo-client: .venv/run ## Join the room from this terminal
	@$(BIN)/python -m app.client

clean: ## Remove what the other commands made, but never data/ or .env
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* htmlcov

.env:
	@cp .env.example .env
	@echo "Made .env from .env.example"

.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or later is needed, and $(PYTHON) is not installed."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed, and $(PYTHON) is %d.%d. Name another one: make run PYTHON=python3.12" % sys.version_info[:2])'
	@echo "Making .venv"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "Could not make .venv. On Debian and Ubuntu: apt install python3-venv"; exit 1; }

.venv/run: .venv/bin/python requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/prod: .venv/bin/python requirements.txt requirements-prod.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-prod.txt
	@touch $@

.venv/dev: .venv/bin/python requirements.txt requirements-prod.txt requirements-dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
