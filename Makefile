# Two commands are enough: `make run` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
TESTERS ?= 5 # tests at a time, because many only wait

.DEFAULT_GOAL := help
.PHONY: help run serve test quick check format bench soak screenshots demo-client clean

help: ## Show this list
	@echo "Portfolio Backend: a chat room for your portfolio site. Settings are in .env."
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F '\t' '{ printf "  make %-12s %s\n", $$1, $$2 }'

run: .venv/run .env ## Serve on http://localhost:8000 and start again whenever the code changes
	@$(BIN)/python -m app --reload

serve: .venv/prod .env ## Serve without watching the code (several processes: WORKERS=4 make serve, with Redis)
	@exec $(BIN)/python -m app

test: .venv/dev tests/npm/node_modules ## Run all tests that this machine can run (five minutes; COVERAGE=1 measures)
	@$(BIN)/python -m pytest -n $(TESTERS) $(if $(COVERAGE),--cov --cov-report=term:skip-covered --cov-fail-under=95)

quick: .venv/dev ## Run the tests that need no other process (half a minute)
	@$(BIN)/python -m pytest -n $(TESTERS) --ignore=tests/process --ignore=tests/browser

check: .venv/dev ## Check format, style and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy --strict app tests

format: .venv/dev ## Put the code into shape
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: .venv/run ## Measure throughput, latency and memory (half a minute)
	@$(BIN)/python tests/bench/bench.py

soak: .venv/dev ## Keep a room busy for ten minutes (MINUTES=60 make soak), and see that nothing grows
	@$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),10)

screenshots: .venv/dev ## Take pictures of the widget, in tests/browser/screenshots/
	@$(BIN)/python -m pytest -n $(TESTERS) tests/browser/take_screenshots.py

demo-client: .venv/run ## Join the room from this terminal
	@$(BIN)/python -m app.client

clean: ## Remove what the other commands made, but never data/ or .env
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* htmlcov tests/npm/node_modules

.env:
	@cp .env.example .env
	@echo "Made .env from .env.example"

.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or later is needed, and $(PYTHON) is not installed."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed, and $(PYTHON) is %d.%d. Name another one: make run PYTHON=python3.12" % sys.version_info[:2])'
	@echo "Making .venv"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "Could not make .venv. On Debian and Ubuntu: apt install python3-venv"; exit 1; }

tests/npm/node_modules: tests/npm/package-lock.json tests/npm/build.mjs $(shell find tests/npm/sites -type f)
	@if command -v npm >/dev/null; then npm ci --prefix tests/npm --ignore-scripts --no-audit --no-fund --silent && \
	(cd tests/npm && node build.mjs) && touch $@; \
	else echo "npm is not installed, so some tests are skipped"; fi

.venv/run: .venv/bin/python requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/prod: .venv/bin/python requirements.txt requirements-prod.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-prod.txt
	@touch $@

.venv/dev: .venv/bin/python requirements.txt requirements-prod.txt requirements-dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
