# What one does with a checkout. `make run` needs nothing but Python 3.11 with its venv module.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check

.PHONY: run test lint bench lock screenshot redaction-report

run: $(VENV)/.deployed
	$(BIN)/lockgate serve

test: $(VENV)/.developed
	tests/provide
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(VENV)/.developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.developed
	$(BIN)/python -m bench

# Over the set of the corpus that nobody who makes the detectors reads; fails where a kind misses its floor.
redaction-report: $(VENV)/.developed
	PYTHONPATH=tests $(BIN)/python -m corpus.report

# The picture in README.md, as the tests see the page.
screenshot: $(VENV)/.developed
	tests/provide
	LOCKGATE_SCREENSHOT=1 $(BIN)/python -m pytest tests/test_reference_page.py -k every_width

# From the floors in setup.cfg to exact versions with their hashes, in the environment of the oldest Python served.
# setuptools is in it to build Lockgate itself without fetching anything else.
lock: $(VENV)/.developed
	echo setuptools | $(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras \
		--no-annotate --no-header --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options \
		--output-file requirements.lock setup.cfg -

# One file for each state that the environment can be in: what it was made from is older than it.
$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.locked: requirements.lock | $(VENV)/.created
	$(PIP) install --quiet --require-hashes -r requirements.lock
	touch $@

$(VENV)/.deployed: $(VENV)/.locked setup.cfg setup.py
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.developed: $(VENV)/.deployed
	$(PIP) install --quiet --no-build-isolation -e '.[test,lint]'
	touch $@
