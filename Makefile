# Everything a fresh machine needs besides Python 3.11+ is installed into .venv here.

PYTHON ?= python3
# What Keras computes with: an extra of setup.cfg. The CPU build is half the download; it exists
# for x86-64 Linux only.
BACKEND ?= $(if $(filter Linux-x86_64,$(shell uname -sm | tr ' ' -)),tensorflow-cpu,tensorflow)
# Flags of bin/reproduce_figures: make reproduce FLAGS="--figures=2"
FLAGS ?=

PIP = .venv/bin/python -m pip --disable-pip-version-check
STAMP = .venv/installed-$(BACKEND)

.PHONY: help reproduce test lint format clean

help:
	@echo "make reproduce   every figure and claim of the paper, into results/quick (about 8 minutes)"
	@echo "make test        the test suite"
	@echo "make lint        style and formatting"
	@echo "make clean       removes .venv and caches; results stay"

reproduce: $(STAMP)
	.venv/bin/python bin/reproduce_figures --preset=quick $(FLAGS)

test: $(STAMP)-test
	.venv/bin/python -m pytest

lint: $(STAMP)-test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

format: $(STAMP)-test
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

.venv/bin/python:
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11)' 2>/dev/null || \
	  { echo "deformstab needs Python 3.11 or later; say which with make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv

$(STAMP): .venv/bin/python setup.cfg
	$(PIP) install --quiet --editable ".[$(BACKEND),reproduce]"
	@touch $@

$(STAMP)-test: $(STAMP)
	$(PIP) install --quiet --editable ".[$(BACKEND),test]"
	@touch $@

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
