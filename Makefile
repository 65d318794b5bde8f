# `make demo` bakes the default project and runs it whole; `make test` runs the tests. Both do all of their set-up.
PYTHON ?= python3

ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif

DEMO := build/my-slm
UV := {{cookiecutter.project}}/requirements/uv.txt
COMPILE := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-find-links

.PHONY: help setup tools demo test test-fast test-full update-test lint lock pictures bench-house bench-right bench-trust bench-chains bench-proof bench-demo bench-workflows bench-task bench-rounding bench-devices bench-verdict bench-synthesis bench-student bench-ablations bench-adapters bench-data

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: .venv/ready ## what bakes
tools: .venv/tools ## what tests, lints and measures

.venv/ready: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -c "import pathlib; pathlib.Path('.venv/ready').touch()"

.venv/tools: requirements-test.txt $(UV) .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$(UV)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-test.txt
	$(BIN)/python -c "import pathlib; pathlib.Path('.venv/tools').touch()"

demo: setup ## bake the default project into build/my-slm, make the model, judge it
	$(BIN)/python -m tests.bake $(DEMO)
	$(MAKE) -C $(DEMO) setup
	$(MAKE) -C $(DEMO) repro
	$(MAKE) -C $(DEMO) gate; judged=$$?; $(MAKE) -C $(DEMO) report && exit $$judged
	@echo
	@echo "Next, in $(DEMO), after source .venv/bin/activate:"
	@echo "  slm chat                          talk to the model"
	@echo "  open reports/report.html          see where it is good and where not"
	@echo "  edit task/, slm repro, slm gate   make it yours"

test: tools ## all but the long tests, under 20 minutes on two cores
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests -m "not full"

test-fast: tools ## the inner loop, under 3 minutes
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests -m "not slow and not full"

test-full: tools ## nightly: every kill point, every scenario
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests

update-test: tools ## nightly: a project of the previous version takes this one; ten minutes
	$(BIN)/python -m pytest -q tests/test_update.py

lint: tools ## style of template and body
	$(BIN)/ruff check --no-cache . && $(BIN)/ruff format --no-cache --check .

lock: tools ## renew requirements-test.txt, and requirements.txt with the same versions
	$(COMPILE) requirements-test.in -o requirements-test.txt
	$(COMPILE) -c requirements-test.txt requirements.in -o requirements.txt

pictures: tools ## the README's pictures, docs/images/ (after make demo; needs Chromium, or CHROMIUM=/path/to/it)
	CHROMIUM="$(CHROMIUM)" $(BIN)/python -m benchmarks.pictures

bench-demo: tools ## a stranger's first half hour, timed
	$(BIN)/python -m benchmarks.demo

bench-workflows: tools ## scenarios, injections, seconds of a change of words (after make demo)
	$(BIN)/python -m benchmarks.workflows

bench-rounding: tools ## what rounding costs, trained for it and not (after make demo)
	$(BIN)/python -m benchmarks.rounding

bench-task: ## facts about the default task's data (after make demo)
	$(DEMO)/$(BIN)/python benchmarks/task.py $(DEMO)

bench-devices: ## how many answers change where the package computes otherwise (after make demo)
	$(DEMO)/$(BIN)/python benchmarks/devices.py $(DEMO)

MILLION ?= 0

bench-synthesis: ## the endpoint teacher under load and under fire (after make demo; MILLION=1000000 for the large memory run)
	$(DEMO)/$(BIN)/python benchmarks/synthesis.py $(DEMO) --million $(MILLION)

STEPS := 160

bench-ablations: ## what each step of making a student is worth (after make demo; an hour and a half, goes on where it was; STEPS=360: longer training runs)
	$(DEMO)/$(BIN)/python benchmarks/ablations.py $(DEMO) --steps $(STEPS)
	$(DEMO)/$(BIN)/python benchmarks/ablations.py $(DEMO) --only "whole run" --steps 960

bench-adapters: ## several jobs: an adapter each, or one training run (after make demo; twenty minutes)
	$(DEMO)/$(BIN)/python benchmarks/adapters.py $(DEMO)

bench-data: ## does what a teacher writes and answers help (after make demo; half an hour, goes on where it was)
	$(DEMO)/$(BIN)/python benchmarks/data.py $(DEMO)

SEEDS := 3

bench-student: tools ## what the full profile makes of the default task, beside TRL's trainers (hours; goes on where it was; SEEDS=1: one student)
	$(BIN)/python -m benchmarks.student --seeds $(SEEDS) $(if $(FRESH),--fresh)

bench-verdict: tools ## how often the verdict is wrong, and what it catches (after make demo)
	$(BIN)/python -m benchmarks.verdict $(DEMO)

bench-house: ## can an adopter find the way, and read what is said of it? (after make demo)
	$(DEMO)/$(BIN)/python -m benchmarks.house $(DEMO)

bench-right: ## is every language, every answer and every door right? (after make demo; five minutes)
	$(DEMO)/$(BIN)/python benchmarks/right.py $(DEMO)

bench-trust: tools ## does anything ship that nobody asked? attacks and their twins (after make demo; a quarter of an hour)
	$(DEMO)/$(BIN)/python -m benchmarks.trust $(DEMO)

bench-chains: tools ## one small task in English, Nepali and Chinese, each through the whole chain (after make demo; half an hour, goes on where it was)
	$(BIN)/python -m benchmarks.chains $(DEMO)

BEFORE := 43d9da1
AFTER := HEAD

bench-proof: tools ## did moving code change what it makes? two commits, baked and run (an hour and a half, goes on where it was)
	$(BIN)/python -m benchmarks.proof $(BEFORE) $(AFTER)
