# Everything runs in a virtual environment of its own; the first target that needs it builds it.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
BACKEND ?= auto

.PHONY: quickstart test check format lint types docs world

quickstart: $(INSTALLED)
	$(BIN)/fpo quickstart --backend $(BACKEND)

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

check: lint types test

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(INSTALLED)
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(INSTALLED)
	$(BIN)/python docs/generate.py cli > docs/cli.md
	$(BIN)/python docs/generate.py api > docs/api.md
	$(BIN)/python docs/generate.py stub > fpo/__init__.pyi

$(INSTALLED): pyproject.toml constraints.txt federated.txt
	@echo 'installing into $(VENV): one to three minutes'
	@while sleep 1; do printf .; done & trap "kill $$!" EXIT; set -e; \
	  $(PYTHON) -m venv $(VENV); \
	  $(BIN)/pip install --upgrade 'pip>=25.1'; \
	  $(BIN)/pip install --constraint constraints.txt --editable '.[dev]'; \
	  $(BIN)/pip install --no-deps --requirement federated.txt
	touch $@
