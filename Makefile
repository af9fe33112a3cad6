# Both main commands set up everything they need in .venv; see README.md.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
NEEDED_GB := 8

.PHONY: help setup notebooks publish test lab
help: ## list the targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  make \1	/'

setup: $(READY) ## make .venv and install requirements.txt into it (the other targets do this by themselves)

notebooks: $(READY) ## execute all notebooks into runs/ and print the results table; QUICK=1 make notebooks is the short version
	@$(PY) -m mnist_helpers notebooks

publish: $(READY) ## the same in full mode, then promote outputs, weights, records and README table into the tracked files
	@$(PY) -m mnist_helpers notebooks --publish

test: $(READY) ## run the whole test suite, the notebooks in quick mode included
	@$(PY) -m pytest

lab: $(READY) ## open JupyterLab on the notebooks
	@$(PY) -m jupyter lab notebooks

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "Python 3.11, 3.12 or 3.13 is needed, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1): install one of them, then try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@[ -e $@ ] || [ "$$(df -Pk . | awk 'NR == 2 {print int($$4 / 1048576)}')" -ge $(NEEDED_GB) ] || { \
	  echo "Installing PyTorch needs $(NEEDED_GB) GB, and the disk that holds this folder has less free: make room, then try again." >&2; exit 1; }
	@echo "Setting up $(VENV), which takes a few minutes the first time ..."
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) cannot make a virtual environment here: install its venv module (on Debian: apt install python3-venv), then try again." >&2; exit 1; }
	@$(PY) -m pip install -q -r requirements.txt
	@touch $@
