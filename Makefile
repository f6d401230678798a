# `make` lists the targets. Each sets up what it needs: python3 and make are enough.
.DEFAULT_GOAL := help
VENV := .venv
PYTHON := $(VENV)/bin/python
SEGFOLIO := $(VENV)/bin/segfolio
READY := $(VENV)/ready

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## the environment in .venv, at the versions of requirements.lock

$(READY): pyproject.toml requirements.lock
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --requirement requirements.lock
	$(PYTHON) -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: $(READY) ## train, test and predict: a small U-Net on procedural shapes, minutes on two cores
	$(SEGFOLIO) fit -c experiments/unet/shapes_small.yaml
	$(SEGFOLIO) test --ckpt_path runs/unet/shapes_small/latest/checkpoints/last.ckpt
	$(SEGFOLIO) predict --ckpt_path runs/unet/shapes_small/latest/checkpoints/last.ckpt

PYTEST := $(VENV)/bin/pytest --numprocesses auto --maxprocesses 4 --dist worksteal

test: checked ## ruff, mypy and pytest
	$(PYTEST)

test-all: checked ## the same, with what takes minutes: the notebook learns, three processes
	$(PYTEST) -m "not gpu and not network"

test-gpu: $(READY) ## what needs a CUDA device
	$(VENV)/bin/pytest -m gpu tests/gpu

checked: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

gpu: $(if $(filter file,$(origin PYTHON)),$(READY)) ## tests, times, trainings on a CUDA device: 9 minutes, docs/gpu.md
	if ls build/gpu/wheels/*.whl >/dev/null 2>&1; then \
		$(PYTHON) -m pip install --quiet --no-index --no-deps --upgrade --target build/gpu/site build/gpu/wheels/*.whl; fi
	PYTHONPATH=src:build/gpu/site $(PYTHON) -m benchmarks.gpu $(GPU)

PACK := docstring_parser|faster-coco-eval|jsonargparse|pyspng|segmentation_models_pytorch|typeshed_client
FOR := --python-version 3.12 --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64
gpu-pack: $(READY) ## what a machine without a network lacks for it, into build/gpu: CAMVID=PATH/TO/CamVid
	$(PYTHON) -m benchmarks.gpu.pack $(CAMVID)
	$(PYTHON) -m pip download --quiet --no-deps --only-binary=:all: $(FOR) --dest build/gpu/wheels \
		$$(grep -E '^($(PACK))==' requirements.lock)
	du -sh build/gpu

bench: $(READY) ## ratios against peers, measured in the same run
	$(PYTHON) -m benchmarks

results: $(READY) ## experiments/RESULTS.md, the papers' figures and ours, and the comparisons of docs/small_runs.md
	$(SEGFOLIO) results --write
	$(SEGFOLIO) compare --page docs/small_runs.md

lock: ## write requirements.lock from .venv
	$(PYTHON) -m pip freeze --all --exclude-editable | grep -ivE '^(pip|setuptools|wheel)==' | sort -f > requirements.lock

clean: ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache

.PHONY: help setup demo test test-all test-gpu gpu gpu-pack checked bench results lock clean
