# `make demo` and `make test` work on a fresh machine with Python 3.11+ and make; the first call sets
# up a virtual environment, later ones start at once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Set to https://download.pytorch.org/whl/cpu to skip the larger default build of PyTorch.
LORID_TORCH_INDEX ?=
export OMP_NUM_THREADS ?= 1

.PHONY: help setup demo test test-unit test-cluster check fmt docs bench models clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(STAMP)  ## create .venv and install from locks/cpu.txt

$(STAMP): locks/cpu.txt pyproject.toml
	@case '$(CURDIR)' in *\ *) echo "error: Ray cannot work in a folder with a space in its path; clone elsewhere"; exit 2;; esac
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is missing or older than 3.11; set PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(if $(LORID_TORCH_INDEX),--index-url $(LORID_TORCH_INDEX)) "$$(grep '^torch==' locks/cpu.txt)"
	$(BIN)/pip install --quiet --no-deps -r locks/cpu.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

demo: $(STAMP)  ## the whole pipeline on this machine, with the shipped models
	$(BIN)/lorid demo

test: $(STAMP)  ## all tests
	$(BIN)/pytest tests --durations=8

test-unit: $(STAMP)  ## the pure ones, seconds
	$(BIN)/pytest tests/unit

test-cluster: $(STAMP)  ## the ones with Ray and vLLM
	$(BIN)/pytest tests/cluster

check: $(STAMP)  ## format, lint, types, import contracts, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --level error
	$(BIN)/lint-imports
	$(BIN)/codespell

fmt: $(STAMP)  ## format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)  ## write the generated pages again: docs/cli.md, docs/http-api.md
	$(BIN)/python -m lorid.cli.help_docs > docs/cli.md
	$(BIN)/python -m lorid.distributed.http_docs > docs/http-api.md

bench: $(STAMP)  ## every benchmark, into benchmarks/results/
	$(BIN)/python benchmarks/demo.py
	$(BIN)/python benchmarks/store.py
	$(BIN)/python benchmarks/checker.py
	$(BIN)/python benchmarks/replay.py
	$(BIN)/python benchmarks/teacher.py
	$(BIN)/python benchmarks/teacher_vllm.py
	$(BIN)/python benchmarks/teach_all.py
	test -d lorid-demo/store || $(BIN)/lorid demo
	$(BIN)/python benchmarks/serve.py

models: $(STAMP)  ## make the demo's models again from nothing (25 minutes)
	$(BIN)/python -m lorid.training.pretrain --out lorid/demo/models

clean:  ## remove the virtual environment and the demo's output
	rm -rf $(VENV) lorid-demo
