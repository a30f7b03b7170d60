# Everything a fresh machine needs, with python3, git and make: `make demo`, `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Many tests wait for others: more workers than cores finish sooner.
JOBS ?= 3

.PHONY: help setup demo example-copy example-coding test test-all check fix bench schema claude lighthouse clean

help:
	@echo "make demo      set up, then run the main job with the embedded defaults (no key, no GPU)"
	@echo "make example-copy     set up, then improve a skill that writes copy (no key, no GPU)"
	@echo "make example-coding   the same for a skill that codes"
	@echo "make test      set up, then run the tests"
	@echo "make test-all  the tests that take longer too"
	@echo "make check     lint, format, types, layers"
	@echo "make fix       mend what the linter can mend"
	@echo "make bench     overhead, slot use, the sandbox, models as proposers; verdicts in known worlds"
	@echo "make claude    install Claude Code into .npm: the tests then try the real one"
	@echo "make lighthouse  install Lighthouse into .npm: the tests of pages then run, where Chromium is"
	@echo "make schema    write configs/schema.json, docs/config.md and docs/attacks.md anew"

setup: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "swarm needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "cannot make a virtual environment: install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(READY)

demo: setup
	$(BIN)/swarm demo

example-copy: setup
	$(BIN)/python scripts/try_skill.py copy

example-coding: setup
	$(BIN)/python scripts/try_skill.py coding

test: setup
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS)

test-all: setup
	$(BIN)/python -m pytest -n $(JOBS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

fix: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python scripts/bench_overhead.py
	$(BIN)/python scripts/bench_slots.py
	$(BIN)/python scripts/bench_sandbox.py
	$(BIN)/python scripts/bench_proposers.py
	$(BIN)/python scripts/bench_judge.py --quick

schema: setup
	$(BIN)/python scripts/make_config_docs.py
	$(BIN)/python scripts/make_attack_docs.py

# A pinned version: its output is what the parser was tried on.
claude:
	npm install --prefix .npm --no-audit --no-fund --silent @anthropic-ai/claude-code@2.1.197

# The last version for Node 18 and 20; harness/page/browser.py names it, too.
lighthouse:
	npm install --prefix .npm --no-audit --no-fund --silent lighthouse@12.8.2

clean:
	rm -rf $(VENV) .npm build dist swarm-demo .pytest_cache .ruff_cache .hypothesis
