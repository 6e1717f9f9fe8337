# Everything a person types here; `make help` lists it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# Every command, worker and slot is a process: each would compile all of dmlpipe again where this is set.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo pictures test test-slow test-oldest test-cloud test-readers check lint typecheck imports bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

# One stamp file says that .venv matches pyproject.toml and constraints.txt; the second call skips the set-up.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "dmlpipe needs Python 3.11 or later; this is $$($(PYTHON) --version). Set one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "this Python has no venv. Install it: sudo apt-get install -y python3-venv"; exit 1; }
	@test -L src/dmlpipe/storage || { echo "src/dmlpipe/storage is not a symbolic link: this checkout lost its links (git config core.symlinks true, then clone again)"; exit 1; }
	@echo "setting up $(VENV) (once; about a minute)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt 'setuptools>=77'
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP) ## the main job on scikit-learn's digits: train, predict, explain, revert
	@$(BIN)/dmlpipe demo $(ARGS)

pictures: $(STAMP) ## the README's pictures, made by the demo
	@$(BIN)/dmlpipe demo --pictures docs/pictures

# A file is run by one process: what its tests share is made once. In the order of the tree: else files of one long test come last.
# ARGS='-n 0 --pdb …' runs all in this process.
test: $(STAMP) ## the default test suite (under 10 minutes)
	@$(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder -m 'not slow' $(ARGS)

test-slow: $(STAMP) ## the tests that take over 30 s each (45 minutes; the soak takes 30 of them)
	@$(BIN)/python -m pytest -q -m slow --durations=0 --durations-min=5 -o faulthandler_timeout=0 $(ARGS)

# The oldest distributed that pyproject.toml allows, in an environment of its own; everything else as pinned.
OLDEST := .venv-oldest
test-oldest: ## the seams to Dask with the oldest release that is supported
	@test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	@grep -v -E '^(dask|distributed)==' constraints.txt > $(OLDEST)/constraints.txt
	@$(OLDEST)/bin/python -m pip install -qq --disable-pip-version-check -c $(OLDEST)/constraints.txt 'setuptools>=77' pytest pytest-asyncio pytest-timeout pytest-xdist hypothesis pytest-rerunfailures
	@$(OLDEST)/bin/python -m pip install -qq --disable-pip-version-check -c $(OLDEST)/constraints.txt -e . "distributed==$$(sed -n 's/.*"distributed>=\([0-9.]*\),.*/\1/p' pyproject.toml).*"
	@$(OLDEST)/bin/python -c 'import distributed; print("distributed", distributed.__version__)'
	@$(OLDEST)/bin/python -m pytest -q tests/scheduler/leases/test_contract.py tests/scheduler/leases/test_dask_seam.py tests/worker/test_dask_seam.py $(ARGS)

test-cloud: $(STAMP) ## Google's and Azure's storage on emulators (the latter: npm install -g azurite)
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[cloud-tests]'
	@$(BIN)/python -m pytest -q tests/storage/backend/test_cloud.py $(ARGS)

test-readers: $(STAMP) ## libraries that read dml:// URLs, in the versions that pip finds
	@$(BIN)/python -m pip install -q -c constraints.txt pandas pyarrow duckdb polars xarray
	@$(BIN)/python -m pytest -q -m slow tests/storage/test_readers.py $(ARGS)

check: lint typecheck imports ## everything CI checks besides the tests

lint: $(STAMP) ## ruff: style and docstrings
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

typecheck: $(STAMP) ## mypy --strict and pyright
	@$(BIN)/mypy
	@$(BIN)/pyright

imports: $(STAMP) ## the direction of dependencies between the layers
	@$(BIN)/lint-imports

bench: $(STAMP) ## inference beside a loop, a pool and client.map; start-up; storage beside cp, git, restic, borg, dvc
	@$(BIN)/python -m benchmarks.inference $(ARGS)
	@$(BIN)/python -m benchmarks.start
	@$(BIN)/python -m benchmarks.storage

clean: ## remove what the targets made
	@rm -rf $(VENV) $(OLDEST) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
