# Everything runs in a virtual environment of its own, made on first use.
WINDOWS := $(filter Windows_NT,$(OS))
PYTHON ?= $(if $(WINDOWS),python,python3)
VENV ?= .venv
LOWEST := .venv-lowest
RELEASE := .venv-release
INTEGRATIONS := .venv-integrations
TORCH ?= torch
SCRIPTS := $(if $(WINDOWS),Scripts,bin)
BIN := $(VENV)/$(SCRIPTS)
OUT := build/demo
# More arguments of pytest: make test ARGS='-k masks'
ARGS ?=
# Processes that share the tests; 0: this one runs them all.
JOBS ?= logical
PYTEST = -m pytest -n $(JOBS) --dist worksteal $(ARGS)
# Install into an environment: uv, which lies in it, takes a fraction of the time that pip takes.
UV = $(1)/$(SCRIPTS)/python -m uv pip install --quiet --python $(1)/$(SCRIPTS)/python

.PHONY: demo docs test test-lowest test-integrations lint style types imports format dist clean

demo: $(VENV)/.installed
	$(BIN)/python tools/demo.py --output $(OUT)

# The site of docs/ in build/site; links that lead nowhere and cells that fail are errors.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/python -m mkdocs build --strict

test: $(VENV)/.installed
	$(BIN)/python $(PYTEST)

# The same tests with the oldest versions that pyproject.toml allows.
test-lowest: $(LOWEST)/.installed
	$(LOWEST)/$(SCRIPTS)/python $(PYTEST)

# What the other environments are too small for: Microsoft Olive, MLflow with a data base.
test-integrations: $(INTEGRATIONS)/.installed
	$(INTEGRATIONS)/$(SCRIPTS)/python $(PYTEST) tests/integrations

lint: style types imports

style: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

imports: $(VENV)/.installed
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A source distribution and, made from it, a wheel. What an older build left would go in, too.
dist: $(RELEASE)/.installed
	rm -rf dist *.egg-info
	$(RELEASE)/$(SCRIPTS)/python -m build
	$(RELEASE)/$(SCRIPTS)/python -m twine check --strict dist/*

clean:
	rm -rf $(VENV) $(LOWEST) $(INTEGRATIONS) $(RELEASE) build dist *.egg-info

$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(call UV,$(VENV)) --editable '.[test,lint]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(call UV,$(VENV)) --editable '.[docs]'
	touch $@

# Only versions with wheels for this Python count: the others would have to be compiled.
$(LOWEST)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/$(SCRIPTS)/python -m pip install --quiet uv
	$(call UV,$(LOWEST)) --resolution lowest-direct --only-binary :all: --no-binary asr-onnx \
		--editable '.[test]'
	touch $@

# Building needs none of the dependencies.
$(RELEASE)/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(RELEASE)
	$(RELEASE)/$(SCRIPTS)/python -m pip install --quiet 'build>=1.2' 'twine>=6.1'
	touch $@

# Olive wants PyTorch.  On Linux the one from PyPI brings gigabytes of CUDA, and this one does not:
# make test-integrations TORCH='torch --index-url https://download.pytorch.org/whl/cpu'
# pip installs it, for it asks the indexes of its settings, too; uv leaves it as it is.
$(INTEGRATIONS)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv --clear $(INTEGRATIONS)
	$(INTEGRATIONS)/$(SCRIPTS)/python -m pip install --quiet uv
	$(INTEGRATIONS)/$(SCRIPTS)/python -m pip install --quiet --no-compile $(TORCH)
	$(call UV,$(INTEGRATIONS)) --editable '.[test,olive,mlflow]' sqlalchemy alembic
	touch $@
