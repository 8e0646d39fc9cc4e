# The commands of the README and of CONTRIBUTING.md; each sets itself up in `.venv`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# A process a core, each with one thread; what shares a fixture stays together.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -n auto --dist loadfile
PIP := $(BIN)/pip --disable-pip-version-check

.PHONY: install demo quick test slow lint format results site docs clean

install: $(VENV)/.installed

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch==2.13.0 numpy
	$(PIP) install -q -c constraints.txt -e '.[demo,onnx,ray,dev]'
	touch $@

demo: install
	$(BIN)/gantailor demo --out runs/demo

quick: install  # under two minutes
	$(PYTEST) -m "not long and not slow"

test: install lint  # as CI
	$(PYTEST) -m "not slow"

slow: install  # what CI leaves out
	$(PYTEST) -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p gantailor

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

results: install  # tables and plots of docs/results from benchmarks/results
	$(BIN)/python benchmarks/tables.py --plots

site: install  # docs/ and the public docstrings as pages, in site/
	$(BIN)/python -m sphinx -q -W --keep-going docs site

docs: install
	$(BIN)/gantailor settings --markdown > docs/settings.md

clean:
	rm -rf $(VENV) build *.egg-info
