# Everything a newcomer needs: `make demo`, `make test`. Both make .venv on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := pyproject.toml constraints.txt $(wildcard kernels/CMakeLists.txt kernels/native/*) $(shell find gradscore kernels/gradscore_kernels -name "*.py")
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_BUILD_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo docs linkcheck test test-all lint format wheel wheel-test sanitize sanitize-quick clean

help:
	@echo "make demo      digits, a small CNN, and a verdict on each prediction (writes demo/)"
	@echo "make test      every test but the slow ones, linters and types (AREA=graph: only those of tests/graph)"
	@echo "make test-all  the slow ones too"
	@echo "make docs      the site, in build/docs (make linkcheck asks the network about its external links)"
	@echo "make sanitize  the C++ kernels under AddressSanitizer and UndefinedBehaviorSanitizer (sanitize-quick: in a minute)"
	@echo "make wheel     dist/*.whl; make wheel-test tries it in a clean environment"

# Not compiled to byte code ahead: that takes longer than the installation, and most modules are never imported.
$(STAMP): $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --editable ".[cpu,export,report,docs,dev]"
	$(BIN)/gradscore doctor
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python -m tools.demo demo

# A warning, a broken link inside the site included, is an error.
docs: $(STAMP)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky -b html docs build/docs

linkcheck: $(STAMP)
	$(BIN)/python -m sphinx -b linkcheck docs build/linkcheck

# As many workers as cores, each on one thread. AREA is a folder of tests/.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(AREA:%=tests/%)
test: $(STAMP) lint
	$(PYTEST) -m "not slow"

test-all: $(STAMP) lint
	$(PYTEST)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror kernels/native/*.?pp
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i kernels/native/*.?pp

wheel: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist

wheel-test: wheel
	$(BIN)/python -m tools.try_wheel dist

SANITIZERS ?= address;undefined
sanitize:
	cmake -S kernels -B build/sanitize "-DGRADSCORE_SANITIZE=$(SANITIZERS)"
	cmake --build build/sanitize --parallel 2
	build/sanitize/selftest

sanitize-quick:
	cmake -S kernels -B build/sanitize-quick "-DGRADSCORE_SANITIZE=$(SANITIZERS)" -DGRADSCORE_QUICK=ON -DGRADSCORE_WERROR=ON -DCMAKE_BUILD_TYPE=Debug
	cmake --build build/sanitize-quick --parallel 2
	build/sanitize-quick/selftest

clean:
	rm -rf $(VENV) build dist demo .mypy_cache .pytest_cache .ruff_cache .hypothesis
