# Two commands matter: `make demo` and `make test`. Everything that a machine needs beyond Python 3.11+ and make is installed here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup check test test-real-size test-slow browser demo results face-models docs clean help

help:
	@echo "make demo         everything: environment, portraits, teacher, stage 1, stage 2, comparison table"
	@echo "make test         environment and the fast tests"
	@echo "make test-slow    real sizes and full counts (make test-real-size: only the two command lines at 380 px)"
	@echo "make check        format, lint, types, layers"
	@echo "make results      three seeds on people never tuned on: docs/results.md (about an hour on two cores)"
	@echo "make browser      a headless browser for the test that looks at the report (Debian, as root; else install Chromium)"
	@echo "make face-models  the face detector and mesh that data_source photos needs"

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[test,check]"
	touch $(STAMP)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

# Tests on real faces skip with their reason where the two face models (2.7 MB) cannot be fetched.
test: setup
	-@$(BIN)/python fetch_models.py face-models
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-real-size: setup
	$(BIN)/python -m pytest -m slow tests/end_to_end/test_two_stages.py

test-slow: setup
	$(BIN)/python -m pytest -m slow

face-models: setup
	$(BIN)/python fetch_models.py face-models

demo: setup
	$(BIN)/python demo/run_demo.py

results: setup
	$(BIN)/python demo/results.py

# The report's own test looks at it in a browser, and skips with its reason where there is none.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	  || { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] \
	       && for try in install update install; do \
	            if [ $$try = update ]; then apt-get update >/dev/null 2>&1; \
	            else apt-get install --yes --quiet --no-install-recommends chromium >/dev/null 2>&1 && break; fi; \
	          done && command -v chromium >/dev/null; } \
	  || echo "no browser here, and none could be installed: the test of the report in a browser skips"

docs: setup
	$(BIN)/python configs/generate.py

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache
