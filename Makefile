# Each target makes the environment that it needs, once, and again when pyproject.toml or constraints.txt change. Their names are seewhy's own,
# so that a .venv of yours stays as it is. What you install beside seewhy in .venv-seewhy is kept, at the versions of constraints.txt.
#   make audit        the main job on four photographs; extra words for it: make audit ARGS="--budget 2m"
#   make test         style, types and every test that takes seconds;  make test-slow: also those that take minutes
#   make lint         style and types alone;  make bench: the numbers in benchmarks/README.md
#   make docs         a page for every explainer, attack and look in docs, from its docstring, with its picture and what it cost
#   make constraints  pin anew what a fresh set-up installs;  make clean: remove the environments and caches
# A build of torch for CPUs only is smaller: PIP_EXTRA_INDEX_URL=<torch's index of CPU builds> make audit

PYTHON ?= python3
OUT ?= seewhy-audit
ARGS ?=
BIN := $(if $(filter Windows_NT,$(OS)),Scripts,bin)
USER_ENV := .venv-seewhy
DEV_ENV := .venv-dev
INPUTS := pyproject.toml constraints.txt
# a peer that pins packages too old to live with; what it truly needs is there
ALONE := torchattacks==3.5.1 torch-lucent==0.1.8

.PHONY: audit test test-slow lint bench docs constraints clean
.DELETE_ON_ERROR:

audit: $(USER_ENV)/.ready
	$(USER_ENV)/$(BIN)/seewhy audit --out $(OUT) $(ARGS)

test: lint
	$(DEV_ENV)/$(BIN)/python -m pytest -m "not slow"

test-slow: lint
	$(DEV_ENV)/$(BIN)/python -m pytest

lint: $(DEV_ENV)/.ready
	$(DEV_ENV)/$(BIN)/ruff check .
	$(DEV_ENV)/$(BIN)/ruff format --check .
	$(DEV_ENV)/$(BIN)/mypy

bench: $(DEV_ENV)/.ready
	$(DEV_ENV)/$(BIN)/python -m benchmarks $(ARGS)

docs: $(DEV_ENV)/.ready
	$(DEV_ENV)/$(BIN)/python docs/make_pages.py $(ARGS)

$(USER_ENV)/.ready: EXTRAS :=
$(USER_ENV)/.ready: KEPT = $$($(USER_ENV)/$(BIN)/python -m pip freeze --exclude-editable | sed -n 's/^\([A-Za-z0-9][A-Za-z0-9._-]*\).*/\1/p')
$(DEV_ENV)/.ready: EXTRAS := [all,dev]
$(DEV_ENV)/.ready: CLEAR := --clear

%/.ready: $(INPUTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: seewhy needs Python 3.11 or newer; say which with PYTHON=..., as in: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || \
		{ echo "error: this Python cannot make environments; on Debian and Ubuntu: sudo apt install $$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); or say another, PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(CLEAR) $*
	$*/$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.$(EXTRAS)' $(KEPT)
	$(if $(EXTRAS),$*/$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(ALONE))
	@touch $@

# What is pinned: everything that [all,dev] brings, without pip and without a build's local version (torch's +cpu).
constraints:
	$(PYTHON) -m venv --clear .venv-pins
	.venv-pins/$(BIN)/python -m pip install --quiet --disable-pip-version-check 'torch==2.13.0' 'torchvision==0.28.0' --editable '.[all,dev]'
	{ echo "# What set-up installs, pinned; made by: make constraints"; \
		.venv-pins/$(BIN)/python -m pip freeze --exclude-editable --exclude pip | sed 's/+.*//'; } > constraints.txt
	rm -rf .venv-pins

clean:
	rm -rf $(USER_ENV) $(DEV_ENV) .venv-pins build dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
