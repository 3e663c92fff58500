# Two commands: `make demo` shows what auricle does, `make test` checks that it does it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# One thread per test process: two processes with two threads each get in each other's way on two cores.
TEST_THREADS ?= 1

.PHONY: demo test
demo: $(VENV)/.ready
	$(BIN)/python examples/demo.py --out runs/demo

test: $(VENV)/.ready
	OMP_NUM_THREADS=$(TEST_THREADS) $(BIN)/python -m pytest -n auto $(PYTEST_ARGS)

# A torch that is already installed is large and may be built for this machine's accelerator: the environment then sees
# the packages around it instead of installing another. Asked of the environment itself: one made from inside another
# sees the packages of the Python beneath both.
HAS_TORCH := import torch; assert tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 6)

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -m venv --clear --system-site-packages $(VENV)
	@if $(BIN)/python -c '$(HAS_TORCH)' 2>/dev/null; then \
		echo "using the installed torch"; \
		grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt; \
	else \
		$(PYTHON) -m venv --clear $(VENV) && cp constraints.txt $(VENV)/constraints.txt; \
	fi
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint $(VENV)/constraints.txt --editable '.[dev]'
	@touch $@
