# Each target sets up what it needs. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(firstword $(foreach v,python3 python3.13 python3.12 python3.11,$(shell $(v) -c 'import sys; sys.version_info >= (3, 11) and print("$(v)")' 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SITE := _build/stored/_build/html
# Two chapters at a time on two cores, so one thread each: a pool of threads in each would only wait for the other's.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 PYDEVD_DISABLE_FILE_VALIDATION=1
# A reader's own start-up files, matplotlibrc, Python switches and active environment change no output.
export IPYTHONDIR := $(CURDIR)/$(VENV)/ipython
export MATPLOTLIBRC := /dev/null
unexport VIRTUAL_ENV PYTHONOPTIMIZE PYTHONSTARTUP PYTHONWARNINGS PYTHONHASHSEED PYTHONINSPECT MPLBACKEND
BUILD := PYTHONWARNINGS=ignore $(BIN)/jupyter-book build . -W -n --keep-going --all -q

.PHONY: help
help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(READY): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed (the pinned numpy asks for it): make PYTHON=/path/to/python3"; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "Python's venv module is missing; installing Debian's python3-venv"; \
		$(call as_root,apt-get update -qq && apt-get install -y -qq python3-venv) || { echo "install it first: apt-get install python3-venv"; exit 1; }; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	$(BIN)/python -m pip uninstall --quiet --yes rfc3987-syntax # jsonschema, if it finds it, builds a grammar for 3 s in each process that reads a notebook
	$(BIN)/python -c 'import matplotlib.font_manager' 2>/dev/null # builds the font cache, or the first chapter would say that it does
	touch $@

as_root = if [ "$$(id -u)" = 0 ]; then $(1); elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo -n sh -c '$(1)'; else false; fi

.PHONY: book
book: $(READY) ## execute every chapter, build the HTML, print where it is
	$(ONE_THREAD) $(BIN)/python -m grokutils.book execute
	@$(BIN)/python -m grokutils.book current _build/html || { $(BUILD) && $(BIN)/python -m grokutils.book built _build/html; }
	@echo; echo "The book: file://$(CURDIR)/_build/html/index.html"

.PHONY: site
site: $(READY) ## build the HTML from the outputs that the repository holds, executing nothing
	BOOK_EXECUTE=off $(BUILD) --path-output _build/stored
	@echo "file://$(CURDIR)/$(SITE)/index.html"

.PHONY: standalone
standalone: site ## each chapter as one notebook that needs no repository, its text resolved to plain Markdown
	@ls $(SITE)/standalone/*.ipynb

.PHONY: shots
shots: $(READY) chromium site ## pictures of every page, three widths, light and dark, to be looked at
	$(BIN)/python tests/site/shots.py

.PHONY: zip
zip: site ## the whole built book as one zip file, to read anywhere
	$(BIN)/python -m grokutils.book zip $(SITE) _build/the-geometry-of-grokking.zip

.PHONY: pdf
pdf: $(READY) chromium ## the whole book as one PDF, printed by Chromium
	BOOK_EXECUTE=off $(BUILD) --builder singlehtml --path-output _build/single
	$(BIN)/python -m grokutils.book pdf _build/single/_build/singlehtml _build/the-geometry-of-grokking.pdf

.PHONY: lab
lab: $(READY) ## open the book in JupyterLab
	@mkdir -p $(VENV)/share/jupyter/lab/settings # it would ask whether it may fetch news
	@echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}' > $(VENV)/share/jupyter/lab/settings/overrides.json
	$(BIN)/jupyter lab --ip=127.0.0.1 $(if $(filter 0,$(shell id -u)),--allow-root) book # in a container one is root

.PHONY: notebooks
notebooks: $(READY) ## execute again, in place, the chapters whose code changed
	$(ONE_THREAD) $(BIN)/python -m grokutils.book refresh

.PHONY: test
test: ## everything: units, stored outputs, re-runs, alone as in Colab, the built site
	$(MAKE) --keep-going lint test-unit test-nbval test-book # one that fails does not hide what the others say

.PHONY: test-fast
test-fast: $(READY) ## units only, without the slow ones
	$(ONE_THREAD) $(BIN)/pytest tests/unit -n 2 -q -m "not slow"

.PHONY: lint
lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m grokutils.book stamp --check

.PHONY: test-unit
test-unit: $(READY)
	$(ONE_THREAD) $(BIN)/pytest tests/unit -n 2 -q

.PHONY: test-nbval
test-nbval: $(READY) ## execute the committed notebooks and compare every stored output
	$(ONE_THREAD) $(BIN)/pytest --nbval --nbval-current-env --nbval-cell-timeout=1800 -n 2 --dist loadfile --no-loadscope-reorder -q -p no:warnings book

.PHONY: test-book
test-book: $(READY) chromium site
	$(ONE_THREAD) $(BIN)/pytest tests/alone tests/site tests/sweep tests/rerun tests/notebooks -n 2 --dist loadfile --no-loadscope-reorder -q # long files first

# The bounds in pyproject.toml, really installed; and the newest of everything, outside the pins.
.PHONY: test-oldest
test-oldest: ## the units on the oldest versions that pyproject.toml allows
	$(call fresh,.venv-oldest)
	sed -n '/^dependencies/,/^]/s/^ *"\(.*\)>=\([^"]*\)".*/\1==\2/p' pyproject.toml > .venv-oldest/bounds.txt
	.venv-oldest/bin/pip install --quiet -r .venv-oldest/bounds.txt "pandas<3" "setuptools<81" $(UNIT_TOOLS)
	$(ONE_THREAD) PYTHONPATH=. .venv-oldest/bin/pytest tests/unit -n 2 -q -W default

.PHONY: test-newest
test-newest: ## the units on the newest versions that there are
	$(call fresh,.venv-newest)
	.venv-newest/bin/pip install --quiet --upgrade -e ".[rerun]" $(UNIT_TOOLS)
	$(ONE_THREAD) .venv-newest/bin/pytest tests/unit -n 2 -q

fresh = rm -rf $(1) && $(PYTHON) -m venv $(1) && $(1)/bin/pip install --quiet --upgrade pip
UNIT_TOOLS := pytest pytest-xdist hypothesis pyyaml nbformat papermill ipykernel

.PHONY: check-links
check-links: $(READY) ## ask every address that the book links to
	BOOK_EXECUTE=off $(BUILD) --builder linkcheck --path-output _build/links

COLAB := https://raw.githubusercontent.com/googlecolab/backend-info/main/pip-freeze.txt
.PHONY: check-colab
check-colab: $(READY) ## compare the versions that we test for Colab with those that it ships
	curl --fail --silent --show-error --location $(COLAB) | $(BIN)/python tests/alone/compare.py

.PHONY: publish
publish: export BOOK_DOWNLOADS := downloads
publish: book pdf ## what the web site holds: the book, and both downloads
	mkdir -p _build/downloads
	$(BIN)/python -m grokutils.book zip _build/html _build/downloads/the-geometry-of-grokking.zip
	cp _build/the-geometry-of-grokking.pdf _build/downloads
	rm -rf _build/html/downloads && mv _build/downloads _build/html/downloads

.PHONY: chromium
chromium:
	@command -v chromium >/dev/null || $(call as_root,apt-get update -qq && apt-get install -y -qq chromium) || \
		echo "No Chromium, and no right to install it: the tests of the built site will be skipped (or fail, under CI)."

.PHONY: bench
bench: $(READY) ## speed, as ratios against named alternatives in the same run
	$(BIN)/python -m benchmarks

.PHONY: mutants
mutants: .venv-mutants/.ready ## which changes of losses, linearization, flow and delay no test notices: hours; it carries on where it stopped
	$(ONE_THREAD) .venv-mutants/bin/mutmut run --max-children 2 $(MUTANTS)
	.venv-mutants/bin/mutmut results

.venv-mutants/.ready: requirements.txt # of its own: mutmut brings a package that renames processes, and tests look for them by name
	$(call fresh,.venv-mutants)
	.venv-mutants/bin/pip install --quiet -r requirements.txt mutmut==3.8.1
	.venv-mutants/bin/pip install --quiet --no-deps -e .
	touch $@

.PHONY: clean
clean: ## remove what was built; clean-all also removes the environments
	rm -rf _build .pytest_cache .ruff_cache .hypothesis mutants

.PHONY: clean-all
clean-all: clean
	rm -rf $(VENV) .venv-*
