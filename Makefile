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
# the packages around it instead of installing another.
$(VENV)/.ready: pyproject.toml constraints.txt
	@if $(PYTHON) -c "import torch; assert tuple(map(int, torch.__version__.split('.')[:2])) >= (2, 6)" 2>/dev/null; then \
		echo "using the installed torch"; \
		$(PYTHON) -m venv --system-site-packages $(VENV) && grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt; \
	else \
		$(PYTHON) -m venv $(VENV) && cp constraints.txt $(VENV)/constraints.txt; \
	fi
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint $(VENV)/constraints.txt --editable '.[dev]'
	@touch $@
