# The one door to everything: make demo, make test, make check, make chaos, make bench, make step, make bss, make penalty, make trace, make datasets,
# make tables DATA=<images>.

PYTHON ?= python3
# Extra words for the installation of torch alone. Without a GPU, name PyTorch's own CPU index here (see the README): it saves gigabytes.
TORCH_PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: demo test check format chaos bench step bss penalty trace datasets tables clean

$(READY): pyproject.toml constraints.txt retort/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Retort needs Python 3.11 or newer, this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH_PIP_ARGS) "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

demo: $(READY)
	$(BIN)/python docs/demo/demo.py

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The long set of docs/reliability.md, about an hour and a half on two cores that do nothing else.
chaos: $(READY)
	RETORT_MACHINE_EXAMPLES=500 $(BIN)/python -m pytest tests/db/life/test_machine.py
	$(BIN)/python -m tests.hostile.fuzz --seconds 600 --seed 1 --out benchmarks/results/fuzz.json
	$(BIN)/python -m tests.chaos --out benchmarks/results/chaos.json
	$(BIN)/python -m tests.chaos.baseline --n 20 --out benchmarks/results/chaos_baseline.json
	$(BIN)/python -m tests.chaos.publish

bench: $(READY)
	$(BIN)/python -m benchmarks.service

step: $(READY)
	$(BIN)/python -m benchmarks.step --out benchmarks/results/step.json

bss: $(READY)
	$(BIN)/python -m benchmarks.bss --out benchmarks/results/bss.json

penalty: $(READY)
	$(BIN)/python -m benchmarks.penalty --out benchmarks/results/penalty.json

trace: $(READY)
	$(BIN)/python -m benchmarks.trace --out benchmarks/results/trace.json

datasets: $(READY)
	$(BIN)/python -m benchmarks.datasets --out benchmarks/results/datasets.json

tables: $(READY)
	@test -n "$(DATA)" || { echo "say where the images are: make tables DATA=<name>.tar.xz"; exit 1; }
	for table in ab_epochs ab_data ab_sizes; do \
	  $(BIN)/python -m benchmarks.tables $$table --data $(DATA) --work build/tables \
	    --out build/tables/$$table.json --page build/tables/$$table.md || exit 1; \
	done

clean:
	rm -rf $(VENV) .demo
