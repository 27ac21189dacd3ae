# The verbs of this project; .ci/run uses the same. uv sets up what each needs in build/venv/, as uv.lock says.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# The Python to work with: "oldest" or "newest" of the supported ones on this machine, or a version such as 3.12.
PYTHON = oldest

# Any Python 3 that runs: it finds uv and the other Pythons.
ANY_PYTHON := $(shell for python in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	$$python -c "" 2>/dev/null && echo $$python && break; done)

EXTRAS = cli,crypto,dask,fsspec,parquet
FUZZ_SECONDS = 60
FUZZ_TARGETS = $(basename $(notdir $(wildcard fuzz/targets/[!_]*.py)))

VENV = build/venv/$(PYTHON)
UV = build/uv
PYTEST = bin/python -m pytest -n auto $(PYTEST_ARGS)
PACKAGE = dist/built

# $(call sync,NAME,SELECTION): what uv.lock says of some groups and extras, and nothing else, in build/venv/NAME.
sync = python=$$($(ANY_PYTHON) tools/find_pythons.py $(PYTHON)) && UV_PROJECT_ENVIRONMENT=build/venv/$(1) \
	$(UV) sync --quiet --frozen --no-install-project --no-default-groups --python "$$python" $(2)

# $(call install,NAME): the wheel, beside what it needs, in build/venv/NAME.
install = $(UV) pip install --quiet --offline --no-deps --reinstall --python build/venv/$(1) dist/*.whl

.PHONY: help demo test pytest setup lint types docs test-newest test-lowest fuzz bench man lock sbom clean

help: ## list the verbs
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 18

demo: $(PACKAGE) ## build an ESX 3i image and export it; IMAGE=path DEST=folder: do it with yours
	$(call sync,demo,--extra cli)
	$(call install,demo)
	build/venv/demo/bin/python tools/demo.py $(if $(IMAGE),--image "$(IMAGE)") $(if $(DEST),--dest "$(DEST)")

test: lint types pytest ## lint, types, docs and all tests

pytest: docs ## the tests of the built wheel, in the locked environment; PYTHON=3.13: on that one
	$(VENV)/$(PYTEST) $(if $(PYTEST_ARGS),,--cov --cov-report=term)

setup: $(PACKAGE) ## what test, lint, types and docs need
	$(call sync,$(PYTHON),--group dev --group test --group docs --all-extras)
	$(call install,$(PYTHON))
	$(call sync,oracle,--only-group oracle)

lint: setup ## ruff: rules and format
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check

types: setup ## mypy --strict, for each platform
	for platform in linux darwin win32; do \
		$(VENV)/bin/mypy --platform $$platform --cache-dir .mypy_cache/$$platform || exit; done

docs: setup ## build the site, in build/docs, with warnings as errors
	rm -rf build/docs
	$(VENV)/bin/python -m sphinx --quiet --fail-on-warning --keep-going -d build/doctrees docs build/docs

test-newest: RESOLUTION = highest
test-newest: PYTHON = newest
test-lowest: RESOLUTION = lowest-direct
test-newest: ## the tests on the newest releases of all packages, and the newest Python
test-lowest: ## the tests on the oldest releases that pyproject.toml promises, and the oldest Python
test-newest test-lowest: docs
	$(UV) venv --quiet --clear --python "$$($(ANY_PYTHON) tools/find_pythons.py $(PYTHON))" build/venv/$@
	$(UV) pip install --quiet --python build/venv/$@ --resolution $(RESOLUTION) --group test "$$(echo dist/*.whl)[$(EXTRAS)]"
	build/venv/$@/$(PYTEST)

fuzz: $(UV) ## fuzz every target for FUZZ_SECONDS=60 each; FUZZ_TARGETS="tar zip": only these
	$(call sync,fuzz,--group fuzz --extra crypto)
	for target in $(FUZZ_TARGETS); do mkdir -p .fuzz/$$target && PYTHONPATH=src build/venv/fuzz/bin/python -m fuzz $$target \
		.fuzz/$$target -max_total_time=$(FUZZ_SECONDS) -timeout=25 -rss_limit_mb=2048 \
		-artifact_prefix=.fuzz/$$target- -print_final_stats=1 || exit; done

bench: bench-main_job ## measure the main job beside other tools; bench-NAME: benchmarks/NAME.py
bench-%: $(PACKAGE)
	$(call sync,bench,--group bench --extra cli)
	$(call install,bench)
	build/venv/bench/bin/python benchmarks/$*.py

man: setup ## write the man page anew, from the command line's own help
	$(VENV)/bin/python tools/man_page.py docs/man/vmvisor-image.1

lock: $(UV) ## pin what development needs, in uv.lock; LOCK_FLAGS=--upgrade: the newest of all
	$(UV) lock $(LOCK_FLAGS)
	$(UV) pip compile --quiet --universal --python-version 3.8 --generate-hashes --no-annotate $(LOCK_FLAGS) \
		--custom-compile-command "make lock" --output-file requirements/uv.txt requirements/uv.in

sbom: $(PACKAGE) ## write what a release is made of to dist/, as CycloneDX, validated; twice, to compare
	$(call sync,release,--only-group release)
	$(call sync,runtime,)
	for name in sbom.cdx.json .again.cdx.json; do build/venv/release/bin/cyclonedx-py environment build/venv/runtime \
		--pyproject pyproject.toml --mc-type library --output-reproducible --validate -o dist/$$name || exit; done
	cmp dist/sbom.cdx.json dist/.again.cdx.json
	rm dist/.again.cdx.json

clean: ## remove all that make made
	rm -rf build dist .fuzz .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(UV): tools/find_uv.py requirements/uv.txt
	@$(ANY_PYTHON) tools/find_uv.py $@

# The wheel is built from the sdist, as a release's is. A folder counts as changed when a file in it comes or goes.
$(PACKAGE): $(UV) uv.lock pyproject.toml README.md LICENSE docs/man/vmvisor-image.1 $(shell find src -not -path "*__pycache__*")
	rm -rf dist
	$(call sync,build,--only-group build)
	build/venv/build/bin/python -m build --no-isolation > build/build.log || { cat build/build.log; exit 1; }
	touch $@
