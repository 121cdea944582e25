# Two commands matter: `make demo` and `make test`. Everything that a machine needs beyond Python 3.11+ and make is installed here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The build of torch: TORCH=cpu takes a quarter of the disk; without a word, what is there stays.
STAMP := $(VENV)/.installed$(if $(TORCH),-$(TORCH))
DEV := $(VENV)/.installed-dev$(if $(TORCH),-$(TORCH))

# The tools that look at the environment live outside it, so that they are no part of what they find.
TOOLS := .venv-audit
SITE := .venv-site

.PHONY: setup dev lock check test test-real-size test-slow browser demo demo-gaze demo-tokens demo-wakeword demo-skeleton results train-free face-models docs audit sbom release site clean help

help:
	@echo "make demo         everything: environment, portraits, teacher, stage 1, stage 2, comparison table"
	@echo "make demo-wakeword  a wake word from a speech teacher, on synthetic voices or DATA=FOLDER"
	@echo "make demo-tokens  transformers with Tsetlin machines on MNIST's digits, three seeds: docs/tokens.md"
	@echo "make demo-skeleton  skeleton actions on an excerpt of UI-PRMD: teacher, student alone, for longer, distilled; a table"
	@echo "make test         environment and the fast tests"
	@echo "make test-slow    real sizes and full counts (make test-real-size: only the two command lines at 380 px)"
	@echo "make check        format, lint, types, layers"
	@echo "make results      three seeds on people never tuned on: output/results/ablation.md (about an hour on two cores)"
	@echo "make train-free   the deepfake model that comes with the package, from freely licensed photos: DATA=FOLDER"
	@echo "make demo-gaze    where people look: rendered scenes, a teacher, students alone and distilled (DATA: folders of photos of faces)"
	@echo "make browser      a headless browser for the test of the report (Debian, as root; else install Chromium); an exported model in it"
	@echo "make audit        known vulnerabilities of the installed packages; says so where the database cannot be reached"
	@echo "make release      the checklist of a release, with wheel and SBOM (CycloneDX) in dist/; RELEASE=--quick: what takes seconds"
	@echo "make site         the documents as a site with search: site/index.html"
	@echo "make face-models  the face detector and mesh that data_source photos needs"

setup: $(STAMP)

# What tests and checks need besides.
dev: $(DEV)

CHECK_VERSION = $(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.11")'

$(STAMP): pyproject.toml requirements.txt
	@$(CHECK_VERSION)
	@$(PYTHON) .ci/environment.py $(VENV) $(if $(TORCH),--torch $(TORCH))
	@touch $(STAMP)

$(DEV): pyproject.toml requirements-dev.txt
	@$(CHECK_VERSION)
	@$(PYTHON) .ci/environment.py $(VENV) --dev $(if $(TORCH),--torch $(TORCH))
	@touch $(STAMP) $(DEV)

# The newest versions within the ranges of pyproject.toml that fit those of the lock files; `make lock UPGRADE=--upgrade` for all.
LOCK = $(TOOLS)/bin/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --quiet --custom-compile-command "make lock" $(UPGRADE)
lock: $(TOOLS)/.installed
	$(LOCK) --output-file requirements.txt
	$(LOCK) --extra test --extra check --constraint requirements.txt --output-file requirements-dev.txt

check: dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

# Tests on real faces skip with their reason where the two face models (2.7 MB) cannot be fetched.
test: dev
	@echo "about 11 minutes on two cores of an AMD EPYC; where face models or packages are missing, tests skip with a reason"
	-@$(BIN)/python fetch_models.py face-models
	-@$(BIN)/python fetch_models.py wakeword
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-real-size: dev
	$(BIN)/python -m pytest -m slow tests/end_to_end/test_two_stages.py

test-slow: dev
	$(BIN)/python -m pytest -m slow

face-models: setup
	$(BIN)/python fetch_models.py face-models

demo: setup
	@echo "about 8 minutes on two cores of an AMD EPYC; Ctrl-C stops it"
	$(BIN)/python demo/run_demo.py

train-free: setup
	@test -n "$(DATA)" || { echo "DATA is missing: make train-free DATA=FOLDER, which holds faces/, faces_cc0/ and faces_congress/"; exit 2; }
	$(BIN)/python -m pip install --quiet --editable ".[video]"
	$(BIN)/python demo/train_free.py "$(DATA)"

# DATA=FOLDER: recordings of people; without, espeak-ng speaks the words.
demo-wakeword: setup
	$(BIN)/python -m pip install --quiet --editable ".[wakeword,wakeword-voices]"
	$(BIN)/python -m sharpstudent.tasks.wakeword.demo $(DATA)

# What the clauses and the teacher of the task `tokens` are worth, on MNIST's digits: docs/tokens.md, which also has the arm with SAM.
demo-tokens: setup
	@echo "under 10 minutes on two cores of an AMD EPYC; Ctrl-C stops it, and the same command goes on"
	$(BIN)/python -m sharpstudent.tasks.tokens.demo --rho 0

demo-skeleton: setup
	$(BIN)/python demo/skeleton/run_demo.py

# Rendered scenes of people who look at things. DATA: folders of photos with one face each; else the portraits of `make demo`.
GAZE_TEACHER = --set student.dim=128 --set stage1.epoch=6 --set 'stage1.lr={"kind":"cosine","start":2e-3,"end":1e-5}'
demo-gaze: setup
	$(BIN)/python fetch_models.py demo
	test -n "$(DATA)" || $(BIN)/python demo/fetch_portraits.py
	test -f data/gaze_scenes/test_annotations_release.txt || $(BIN)/python -m sharpstudent.tasks.gaze.render_scenes $(or $(DATA),data/demo) data/gaze_scenes --side 224
	$(BIN)/python train_student_only.py configs/demo_gaze.json -n gaze_teacher --resume auto $(GAZE_TEACHER)
	printf '1\n2\n3\n' | OMP_NUM_THREADS=1 xargs -P 2 -I{} $(BIN)/python train_student_only.py configs/demo_gaze.json -n gaze_start_s{} --resume auto --set seed={} --set stage1.epoch=1
	$(BIN)/python -m sharpstudent.tasks.gaze.baselines configs/demo_gaze.json "$$(ls -d output/gaze_teacher_* | tail -n 1)"
	$(BIN)/python compare_models.py ablate configs/demo_gaze.json --data test --jobs 2 --arms configs/demo_gaze_arms.json
	$(BIN)/python compare_models.py "$$(ls -d output/ablation_demo_gaze_demo_gaze_arms/runs/s1_distilled_[0-9]* | tail -n 1)" "$$(ls -d output/gaze_teacher_* | tail -n 1)" --data test --out output/gaze_maps

results: setup
	$(BIN)/python demo/results.py

# The report's own test looks at it in a browser, and asks axe-core for faults of WCAG; it skips where there is none.
browser: dev
	-$(BIN)/python -m pip install --quiet --no-deps axe-playwright-python==0.1.8
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	  || { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] \
	       && for try in install update install; do \
	            if [ $$try = update ]; then apt-get update >/dev/null 2>&1; \
	            else apt-get install --yes --quiet --no-install-recommends chromium >/dev/null 2>&1 && break; fi; \
	          done && command -v chromium >/dev/null; } \
	  || echo "no browser here, and none could be installed: the test of the report in a browser skips"
	@if command -v npm >/dev/null && command -v chromium >/dev/null && $(BIN)/python demo/check_browser.py --fetch; \
	  then $(BIN)/python demo/check_browser.py; \
	  else echo "an exported model in the browser is not checked: it needs npm, its registry, and chromium"; fi

# Without a network the tools cannot be fetched, nor the database be asked: that is said, and is no failure.
audit: dev $(TOOLS)/.installed
	$(BIN)/python .ci/audit.py $(TOOLS)/bin/pip-audit "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" $(AUDIT)

$(TOOLS)/.installed: pyproject.toml
	test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	-$(TOOLS)/bin/python -m pip install --quiet pip-audit==2.10.1 cyclonedx-bom==7.5.0 uv==0.13.8 && touch $@

sbom: dev $(TOOLS)/.installed
	mkdir -p dist
	$(TOOLS)/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible \
	  --output-file "dist/sharpstudent-$$($(BIN)/python -c 'from importlib.metadata import version; print(version("sharpstudent"))').cdx.json"

# The checklist of a release, each item run; it publishes nothing.
release: dev
	$(BIN)/python .ci/release.py $(RELEASE)

# The documents as a site with search and an API reference, in site/; a broken link or a warning fails.
site: $(SITE)/.installed
	@NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --strict --quiet
	@echo "site/index.html opens from the disk; with its search: python3 -m http.server --directory site"

$(SITE)/.installed: pyproject.toml
	@test -x $(SITE)/bin/python || $(PYTHON) -m venv $(SITE)
	@$(SITE)/bin/python -m pip install --quiet $$($(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])') 2>$(SITE)/install.log
	@touch $@

docs: dev
	$(BIN)/python configs/generate.py

clean:
	rm -rf $(VENV) $(TOOLS) $(SITE) site build dist *.egg-info .pytest_cache .ruff_cache
