# make train   create .venv, install, and train on the embedded digits
# make test    create what it needs, then run every test
# make help    the rest
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= configs/digits_dtp.yaml
JOBS ?= 3
# Whole files in JOBS processes (one more than two cores, since tests of faults wait), in the order of testpaths;
# JOBS=0 is one after another in this one.
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: train test test-fast lint format types venv clean help

train: venv
	$(BIN)/dtp-dist train $(CONFIG) $(ARGS)

test: venv
	$(PYTEST) $(ARGS)

test-fast: venv
	$(PYTEST) -m "not slow" $(ARGS)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: venv
	$(BIN)/mypy

venv: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

help:
	@echo "make train [CONFIG=configs/X.yaml] [ARGS='key=value ...']   train (digits by default)"
	@echo "make test | test-fast [JOBS=3] [ARGS='-k name']             all tests | without the slow ones"
	@echo "make lint | format | types                                  ruff | ruff, in place | mypy"
	@echo "make venv | clean                                           the environment alone | remove it"
