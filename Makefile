# `make` or `make help` lists the targets.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
PROFILE ?= full
EXPERIMENT_full := table1
EXPERIMENT_resnet20 := table1_resnet20
EXPERIMENT_small := table1_small
EXPERIMENT ?= $(or $(EXPERIMENT_$(PROFILE)),$(error PROFILE=$(PROFILE): there is no such profile; use full, resnet20 or small))
ARGS ?=
# The results folder that is read: RESULTS=outputs shows what `make quickstart` made here.
RESULTS ?= results
# Without an NVIDIA GPU, the versions of torch and torchvision that are tested; with one, the newest.
CONSTRAINTS ?= $(if $(shell command -v nvidia-smi 2>/dev/null),,-c constraints/cpu.txt)
INSTALLED := $(VENV)/.installed

.PHONY: help setup quickstart data table1 merge status evaluate card verify readme report wandb-sync bench test test-slow test-slurm test-ray test-cuda \
	test-browser lint format clean
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## install everything into .venv

$(INSTALLED): pyproject.toml constraints/cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[experiments,dev]'
	touch $@

quickstart: $(INSTALLED) ## run the whole pipeline on synthetic images: train 4 short runs, one per core at a time
	$(RUN) train.py experiment=quickstart results_dir=outputs threads=1 $(ARGS)
	$(RUN) scripts/make_table1.py --experiment quickstart --results-dir outputs
	$(RUN) scripts/report.py --experiment quickstart --results-dir outputs
	@echo "To run train.py yourself: source $(VENV)/bin/activate, then python train.py --help"

data: $(INSTALLED) ## put CIFAR-100 into data/: FROM=folder-or-archive, else download
	$(RUN) scripts/get_data.py $(if $(filter undefined,$(origin FROM)),--download,--from "$(FROM)") --to data

table1: $(INSTALLED) ## make Table 1 (PROFILE=full, resnet20 or small): train what is missing, then show the table
	$(RUN) train.py experiment=$(EXPERIMENT) $(ARGS)
	$(RUN) scripts/make_table1.py --experiment $(EXPERIMENT)$(if $(REFERENCE), --reference $(REFERENCE))

merge: $(INSTALLED) ## merge run folders from other machines: FROM=results-folder
	$(RUN) scripts/merge_results.py $(FROM)

status: $(INSTALLED) ## show which runs are done, running, failed or waiting; EXPERIMENT or PROFILE selects one, RESULTS a folder
	$(RUN) scripts/status.py --results-dir $(RESULTS) $(if $(filter filefile,$(origin EXPERIMENT)$(origin PROFILE)),,--experiment $(EXPERIMENT))

evaluate: $(INSTALLED) ## recompute the recorded numbers of EXPERIMENT from its kept weights; needs the data set
	$(RUN) scripts/evaluate.py --experiment $(EXPERIMENT) --results-dir $(RESULTS) $(ARGS)

card: $(INSTALLED) ## write a model card for the kept weights of EXPERIMENT: results/EXPERIMENT/MODEL_CARD.md
	$(RUN) scripts/model_card.py --experiment $(EXPERIMENT)

verify: $(INSTALLED) ## rebuild every committed table from the records, and say whether a byte differs
	$(RUN) scripts/make_table1.py --check --results-dir $(RESULTS)

readme: $(INSTALLED) ## fill README.md and docs/ from results/, and draw the README's figure
	$(RUN) scripts/render_readme.py

report: $(INSTALLED) ## write RESULTS/EXPERIMENT/report.html from the records alone; REFERENCE=loss sets what to compare with
	$(RUN) scripts/report.py --experiment $(EXPERIMENT) --results-dir $(RESULTS)$(if $(REFERENCE), --reference $(REFERENCE))

wandb-sync: $(INSTALLED) ## send W&B's offline runs (outputs/wandb/ or $WANDB_DIR/wandb/)
	mkdir -p "$${WANDB_DIR:-outputs}/wandb"
	$(VENV)/bin/wandb sync --yes "$${WANDB_DIR:-outputs}/wandb"

bench: $(INSTALLED) ## measure our training loop against a textbook loop on this machine: one run, several at once, compiled
	$(RUN) scripts/bench.py $(ARGS)

test: $(INSTALLED) ## run the tests on all cores
	$(RUN) -m pytest -q -n logical --maxprocesses 8 --dist worksteal $(ARGS)

test-slow: $(INSTALLED) ## run the tests that take minutes
	$(RUN) -m pytest -q -m slow $(ARGS)

test-slurm: $(INSTALLED) ## test a sweep on a real Slurm, installed and started here (Debian, root)
	$(RUN) -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[slurm]'
	$(RUN) -m pytest -q -m slurm $(ARGS)

test-ray: $(INSTALLED) ## test a sweep on a real Ray of two nodes, started here
	$(RUN) -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[ray]'
	$(RUN) -m pytest -q -m ray $(ARGS)

test-cuda: $(INSTALLED) ## test the CUDA path, on a GPU
	TEST_CUDA=1 $(RUN) -m pytest -q -n0 tests/training/test_cuda.py $(ARGS)

test-browser: $(INSTALLED) ## test the report in a real Chromium (Debian, root; screenshots in artifacts/)
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || true
	$(RUN) -m pytest -q -m browser $(ARGS)

lint: $(INSTALLED) ## check with ruff, mypy and the direction of imports
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(INSTALLED) ## format the code with ruff
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean: ## remove outputs/ (results of quickstart, unsent W&B runs) and caches; never results/ or data/
	rm -rf outputs artifacts build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
