# What one does here.  Everything runs in .venv, which scripts/setup makes and keeps up to date.

PYTHON := .venv/bin/python
PYTEST_ARGS ?=
# Tests start some hundred programs, each of which would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE
PIP_COMPILE = build/lock/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header \
    --no-emit-options --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --annotation-style line \
    $(if $(UPGRADE),--upgrade)

.PHONY: help setup demo lab test check soak crash-matrix mutants rig-mutants docs lock deb bench bench-rig clean
.DEFAULT_GOAL := help

help:  ## this text
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## make .venv (and install what Debian packages are missing)
	@scripts/setup

demo: setup  ## the main job, step by step (on NVIDIA hardware it only looks)
	@$(PYTHON) scripts/demo

lab: setup  ## a shell on a simulated hypervisor with a libvirt of its own, as root
	@$(PYTHON) scripts/lab

test: setup  ## all tests, linters among them; as root also those that need it
	@scripts/setup --rig
	@scripts/setup --ansible
	$(PYTHON) -m pytest $(PYTEST_ARGS)

check: setup  ## the quick tests, under two minutes, without root
	$(PYTHON) -m pytest -m "not slow and not root and not rig" $(PYTEST_ARGS)

SEEDS ?= 1000
FROM ?= 0

soak: setup  ## SEEDS=N random histories from seed FROM=K on, stopping at the first that goes wrong
	$(PYTHON) -m tests.simulation soak --seeds $(SEEDS) --from $(FROM)

crash-matrix: setup  ## every use case, killed at every point
	$(PYTHON) -m tests.simulation crash-matrix

mutants: setup  ## the planted bugs of tests/mutants, each to be found
	$(PYTHON) -m tests.simulation mutants

rig-mutants: setup  ## those of the simulated driver, in the rig, as root
	@scripts/setup --rig
	$(PYTHON) -m tests.rig mutants

docs: setup  ## docs/reference anew, from the code
	$(PYTHON) tools/build_reference.py

# UPGRADE=1 takes the newest versions that setup.cfg allows; otherwise pins stay that still fit.
lock: setup  ## write the locks of Python packages anew
	$(PYTHON) -m venv --clear build/lock
	build/lock/bin/pip install --quiet --disable-pip-version-check pip-tools
	$(PIP_COMPILE) --extra test --all-build-deps --output-file requirements.lock pyproject.toml
	sed -i '1i # Made by "make lock" from setup.cfg, for Python 3.11 on Linux.' requirements.lock
	$(PIP_COMPILE) --output-file ansible/requirements.lock ansible/requirements.in
	sed -i '1i # Made by "make lock" from ansible/requirements.in, for Python 3.11 on Linux.' ansible/requirements.lock

deb: setup  ## packages for Debian 12 and 13 into dist/, as root
	$(PYTHON) tools/build_deb.py

bench: setup  ## measure
	$(PYTHON) benchmarks/run.py

bench-rig: setup  ## measure in the rig, as root
	@scripts/setup --rig
	$(PYTHON) -m benchmarks.rig

clean:  ## remove whatever was made here
	rm -rf .venv .venv-ansible .demo .lab build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache \
	    .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
