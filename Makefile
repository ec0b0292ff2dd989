# Every target works on a fresh clone: it makes .venv, installs what it needs at the tested versions, and runs.
# PIP_ARGS is handed to pip: without a GPU, name PyTorch's CPU index there (see README.md).

PYTHON   ?= python3
PIP_ARGS ?=
VENV     := .venv
BIN      := $(VENV)/bin
RUN      := OMP_NUM_THREADS=1 $(BIN)/python
SUITE    ?= quick
OUT      ?= runs/$(SUITE)
ARGS     ?=

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench clean

help:  ## show this list
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'
	@echo "  variables: PIP_ARGS, PYTHON, SUITE=$(SUITE), OUT=$(OUT), ARGS (handed to the command)"

demo: $(VENV)/installed-all  ## train PPO and DQN, ours and stock, on three small tasks and draw the report (15 minutes on 2 cores)
	$(BIN)/text-envs bench run quick --out runs/demo $(ARGS)
	$(BIN)/text-envs report runs/demo

bench: $(VENV)/installed-all  ## run SUITE into OUT and draw its report
	$(BIN)/text-envs bench run $(SUITE) --out $(OUT) $(ARGS)
	$(BIN)/text-envs report $(OUT)

test: $(VENV)/installed-dev  ## run the tests, the slow ones too (a quarter of an hour on 2 cores)
	$(RUN) -m pytest -q -n 2 -m "not network and not gpu" $(ARGS)

check: $(VENV)/installed-dev  ## format, lint and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

format: $(VENV)/installed-dev  ## format and mend what the linter can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:  ## remove the environment and the caches; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

# torch goes first and alone, so that nothing else decides which build of it is taken.
$(VENV)/installed-torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt torch
	touch $@

$(VENV)/installed-%: setup.cfg constraints.txt $(VENV)/installed-torch
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e ".[$*]"
	touch $@
