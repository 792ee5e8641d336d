# Two commands do everything: `make demo` and `make test`. Both set up by themselves.
PYTHON ?= python3
VENV   ?= .venv
PY     := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup demo up test lint bench screenshots proto contract lock clean

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/.ready: requirements/dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo 'setup: Python 3.11 or newer is needed, and $(PYTHON) is' \
		"$$($(PYTHON) --version 2>&1 | head -n 1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo 'setup: this Python has no venv module; on Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }
	@echo 'setup: making $(VENV) and installing the locked dependencies'
	@$(PYTHON) -m venv --clear $(VENV)
	@{ $(PY) -m pip install --disable-pip-version-check --progress-bar off --require-hashes -r requirements/dev.lock || \
		echo failed; } | { failed=0; while read -r word _; do case $$word in \
		Collecting) printf . ;; Installing) printf ' installing' ;; failed) failed=1 ;; esac; done; echo; exit $$failed; }
	@touch $@

setup: $(VENV)/.ready ## make .venv with the locked dependencies

demo: setup ## stampede and cure, side by side, on embedded servers
	@$(PY) -m app demo

up: setup ## the embedded stack, without load, until Ctrl-C
	@$(PY) -m app up

test: setup ## the whole test suite, on real servers that it starts itself
	@$(PY) -m pytest

lint: setup ## ruff, mypy, import contracts
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports

bench: setup ## figures with their baselines, into out/bench.json
	@$(PY) -m tests.bench

screenshots: setup ## pictures of the demo's pages, into out/screenshots (needs Chromium)
	@$(PY) -m tests.screenshots

proto: setup ## regenerate the gRPC code from app/proto
	@$(PY) -m grpc_tools.protoc -I . -I "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
		--python_out=. --pyi_out=. --grpc_python_out=. app/proto/template/v1/template.proto

contract: setup ## what breaks of the gRPC contract that was released last
	@$(PY) -m tests.contract

lock: ## resolve the dependencies anew (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--no-emit-index-url -q -o requirements/runtime.lock
	uv pip compile pyproject.toml --extra embedded --extra lab --extra dev -c requirements/runtime.lock --universal \
		--python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url -q -o requirements/dev.lock

clean: ## remove what was made here
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
