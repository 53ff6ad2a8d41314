# Every target runs in .venv, which the first one called makes. Another interpreter: make test PYTHON=python3.11
PYTHON ?= python3
BIN := .venv/bin
# The stamp is newer than the declared dependencies only once they are installed.
INSTALLED := .venv/.installed

.PHONY: demo test quality docs bench mutants kills clean

demo: $(INSTALLED)
	$(BIN)/python examples/demo.py

# Offline; two processes of one thread each, since the tests' models are too small to share. A file's tests stay together;
# files are not ordered by their number of tests, which would put long ones of few tests last, on one process alone.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 $(BIN)/python -m pytest -q --numprocesses 2 \
	    --dist loadfile --no-loadscope-reorder

# mypy sees the installed names (sgm_hf.modeling, not modeling) in a built copy.
quality: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/typed
	$(BIN)/python setup.py --quiet build_py --build-lib build/typed
	cd build/typed && ../../$(BIN)/mypy --config-file ../../pyproject.toml --package sgm_hf

# The site of the documentation, without a network: build/site/index.html. The variable silences an advertisement.
docs: $(INSTALLED)
	rm -rf build/documented
	$(BIN)/python setup.py --quiet build_py --build-lib build/documented
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Texts like AAPD's are drawn unless the corpus is given: make bench BENCH='--data_dir data/aapd'
bench: $(INSTALLED)
	$(BIN)/python benchmarks/bench_training.py $(BENCH)
	$(BIN)/python benchmarks/bench_generate.py $(BENCH)
	$(BIN)/python benchmarks/bench_latency.py $(BENCH)
	$(BIN)/python benchmarks/bench_predict.py $(BENCH)

# Not part of CI; goes on where it was interrupted. One file: make mutants MUTANTS=modeling/handler.py
mutants: $(INSTALLED)
	$(BIN)/python tests/mutation/mutation_run.py $(MUTANTS)

# Not part of CI: kills trainings at random times and compares what they end with when resumed. Fewer: make kills KILLS=5
KILLS ?= 40
kills: $(INSTALLED)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 $(BIN)/python tests/training/kill_and_resume.py --kills $(KILLS)

# pip would refuse another Python only after it has downloaded torch.
# torch by its exact release first, so that pip takes the CPU build where the machine offers one.
$(INSTALLED): setup.py pyproject.toml
	@python=$(PYTHON); test ! -x $(BIN)/python || python=$(BIN)/python; \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Python 3.11 or newer is needed, $$python is: $$($$python --version 2>&1)" >&2; \
	    echo "Install it and name it: make $(or $(MAKECMDGOALS),demo) PYTHON=python3.11 (make clean first, if .venv has another)" >&2; \
	    exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install torch==2.13.0
	$(BIN)/python -m pip install --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
