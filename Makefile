# make setup   virtual environment with the exact pins of constraints.txt
# make test    lint, types, tests
# make demo    record -> embed -> train -> rollout on one CPU
# make fuzz    two minutes of made-up input for every reader
# make format  let ruff rewrite what it can

PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup test demo fuzz format clean

setup: .venv/ready

# The stamp is newer than what it was made from, or it is made again.
.venv/ready: pyproject.toml constraints.txt scripts/system.sh
	PYTHON=$(PYTHON) sh scripts/system.sh
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

test: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

demo: .venv/ready
	PATH="$(CURDIR)/$(BIN):$$PATH" python examples/demo.py

fuzz: .venv/ready
	$(BIN)/python tests/fuzz/run.py

format:
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
