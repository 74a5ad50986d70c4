# The targets people type. Each sets up what it needs, once.
VENV := .venv
PYTHON := $(VENV)/bin/python
UV := $(VENV)/bin/uv
READY := $(VENV)/.ready
MAIN ?= python3
PYTEST = $(PYTHON) -m pytest -q --dist loadgroup --durations 20

.PHONY: help install tune test test-quick test-long test-faults-long test-publish-long check lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

install: $(READY)  ## set up .venv: uv, the locked packages with compiled bytecode, this package

tune: $(READY)  ## the main job: search, train and export a student on the built-in scenes
	$(PYTHON) -m singer_ray.tune $(ARGS)

# Three processes for two cores: one of them, that of Ray, waits for other processes most of the time.
test: $(READY)  ## run the tests (8 minutes), in two processes: what starts Ray, and the rest
	$(PYTEST) -n 2 -m "not long" $(ARGS)

test-quick: $(READY)  ## run the fast tests (2 minutes): without Ray, browser or server
	$(PYTEST) -n 2 -m quick $(ARGS)

test-long: $(READY)  ## run the long tests (half an hour)
	$(PYTEST) -n 2 -m long $(ARGS)

test-faults-long: $(READY)  ## kill searches at 20 random moments and resume them (about 40 minutes)
	$(PYTHON) -m tests.faults.long $(ARGS)

test-publish-long: $(READY)  ## publish through 200 planned faults (about 6 minutes)
	$(PYTHON) -m tests.publishing.faults --seeds 200

check: $(READY)  ## lint, format and type checks
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

lock: $(READY)  ## resolve pyproject.toml into requirements.lock: exact versions and hashes
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --extra dev \
		--output-file requirements.lock pyproject.toml

clean:  ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache dist

$(READY): requirements.lock pyproject.toml
	@$(MAIN) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(MAIN) is $$($(MAIN) --version 2>&1); Python 3.11 or later is needed: make install MAIN=python3.12" >&2; exit 2; }
	@test -x $(PYTHON) || $(MAIN) -m venv $(VENV) || \
		{ echo "make: $(MAIN) cannot make virtual environments; on Debian: apt install python3-venv" >&2; exit 2; }
	@test -x $(UV) || $(PYTHON) -m pip install --quiet --disable-pip-version-check \
		"uv==$$(sed -n 's/^uv==\([0-9.]*\).*/\1/p' requirements.lock)"
	$(UV) pip install --quiet --python $(PYTHON) --require-hashes --compile-bytecode --requirement requirements.lock
	$(UV) pip install --quiet --python $(PYTHON) --no-deps --no-build-isolation --editable .
	@touch $(READY)
