# make demo   segments a real aerial image and a real slide, writes ./demo-output
# make test   runs the tests
# Both make the environment themselves (.venv); they need Python 3.11 or later, pip and make.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Modules are compiled when they are first used, since most of what is installed is never imported, and kept: where this
# variable is set, each of the hundreds of processes of a test run would compile torch anew, which takes 5 s.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)

# One thread per process: tests run in several processes on tiny tiles, where more threads only get in each other's way.
TEST_ENV := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

# One process more than there are processors, since tests wait too: for processes, for disks, for clocks.
PROCESSES := $(shell n=$$(( $$(nproc 2>/dev/null || echo 2) + 1 )); test $$n -lt 4 || n=4; echo $$n)

.PHONY: setup demo test test-long test-gpu test-offline audit bench lint docs notebooks clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; name one with make PYTHON=/path/to/python" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --no-compile -c constraints.txt -e '.[bioimageio,dev,dicom,docs,hdf5,monai,remote,report,vectors,view,xarray]'
# The models of others are tested without torchvision, which has no build for torch on the CPU alone.
	$(PIP) install --no-compile -c constraints.txt huggingface_hub tqdm
	$(PIP) install --no-compile -c constraints.txt --no-deps timm segmentation-models-pytorch
# Of eopf only the schemas of STAC's extensions are used, which lie in no other package.
	$(PIP) install --no-compile -c constraints.txt --no-deps eopf
	touch $@

demo: $(STAMP)
	$(BIN)/tilepipe demo

test: $(STAMP)
	$(TEST_ENV) $(BIN)/python -m pytest -q -n $(PROCESSES) --dist worksteal

# What make test leaves out: minutes rather than seconds for each, and more examples of every property test.
test-long: $(STAMP)
	$(TEST_ENV) $(BIN)/python -m pytest -q -m '(long or hypothesis) and not gpu' --hypothesis-profile=many -n $(PROCESSES) --dist worksteal

test-gpu: $(STAMP)
	$(BIN)/python -m pytest -q -m gpu

# The same tests where there is no network: what connects to another machine ends with code 99.
test-offline: $(STAMP)
	$(TEST_ENV) unshare -rn $(BIN)/python tests/helpers/without_network.py pytest -q

# Known holes of the installed packages; it asks a service on the network, and brings its own environment.
audit: $(STAMP)
	test -x $(VENV)/audit/bin/pip-audit || { $(BIN)/python -m venv $(VENV)/audit && $(VENV)/audit/bin/pip install -q pip-audit; }
	$(VENV)/audit/bin/pip-audit -r constraints.txt --no-deps --disable-pip

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/sphinx-build -q -W -b html docs docs/_build/html
	@echo docs/_build/html/index.html

# Speed beside other ways, in one run; minutes. Other programs on the machine spoil it.
bench: $(STAMP)
	$(BIN)/python benchmarks/speed.py --side 2048 --repeat 3 --json benchmarks/speed.json

# Executes the example notebooks and stores their outputs, which the pages show.
notebooks: $(STAMP)
	$(BIN)/python docs/notebooks/execute.py

clean:
	rm -rf demo-output docs/_build docs/notebooks/output .pytest_cache .mypy_cache .ruff_cache .hypothesis
