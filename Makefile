# Both main commands set up everything they need in .venv; see README.md.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
NEEDED_GB := 8
WORKERS ?= 2
PYTEST := $(PY) -m pytest -n $(WORKERS) --dist worksteal -p no:nbmake

.PHONY: help setup notebooks publish test test-full lab colab
help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1	/'

setup: $(READY) ## make .venv and install requirements.txt into it (the other targets do this by themselves)

notebooks: $(READY) ## execute all notebooks into runs/ and print the results table; QUICK=1 make notebooks is the short version
	@$(PY) -m mnist_helpers notebooks

publish: $(READY) ## the same in full mode, then promote outputs, weights, records and README table into the tracked files
	@$(PY) -m mnist_helpers notebooks --publish

test: $(READY) ## run the test suite with the notebooks in quick mode, in two processes; more with WORKERS=4
	@$(PYTEST)

test-full: $(READY) ## the same with its long loops
	@$(PYTEST) -m ""

lab: $(READY) ## open JupyterLab on the notebooks
	@$(PY) -m jupyter lab notebooks

# Colab's versions come first on the path, and all the rest, PyTorch too, is borrowed from $(VENV). ipywidgets comes without
# what it asks for, which is a whole Jupyter; the kernel needs little of it.
COLAB := .venv-colab
colab: $(READY) ## test the widgets and the notebooks' first cell with the versions that Colab has, in an environment of their own
	@rm -rf $(COLAB)
	@$(PY) -m venv $(COLAB)
	@$(COLAB)/bin/python -m pip install -q ipykernel==6.17.1 ipython==7.34.0 "setuptools>=77" wheel
	@$(COLAB)/bin/python -m pip install -q --no-deps ipywidgets==7.7.1 ipython_genutils==0.2.0
	@$(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > $$($(COLAB)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/main_environment.pth
	@$(COLAB)/bin/python -m pytest tests/widgets

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "Python 3.11, 3.12 or 3.13 is needed, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1): install one of them, then try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@[ -e $@ ] || [ "$$(df -Pk . | awk 'NR == 2 {print int($$4 / 1048576)}')" -ge $(NEEDED_GB) ] || { \
	  echo "Installing PyTorch needs $(NEEDED_GB) GB, and the disk that holds this folder has less free: make room, then try again." >&2; exit 1; }
	@echo "Setting up $(VENV), which takes a few minutes the first time ..."
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) cannot make a virtual environment here: install its venv module (on Debian: apt install python3-venv), then try again." >&2; exit 1; }
	@$(PY) -m pip install -q --upgrade pip
	@$(PY) -m pip install -q -r requirements.txt
	@touch $@
