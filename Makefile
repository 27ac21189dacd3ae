# The verbs of this project; .ci/run uses the same. uv sets up what each needs in build/venv/, as uv.lock says.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
# The Python to work with: "oldest" or "newest" of the supported ones on this machine, or a version such as 3.12.
PYTHON = oldest

# Any Python 3 that runs: it finds uv and the other Pythons.
ANY_PYTHON := $(firstword $(foreach name,python3 python3.11 python3.12 python3.13 python3.14 python, \
	$(shell $(name) -c "print('$(name)')" 2>/dev/null)))

UV = build/uv
PACKAGE = dist/built
VENV = build/venv/$(PYTHON)
PYTEST = bin/python -m pytest -n auto $(PYTEST_ARGS)
FUZZ_SECONDS = 60

# $(call sync,NAME,SELECTION): what uv.lock says of some groups and extras, and nothing else, in build/venv/NAME.
sync = python=$$($(ANY_PYTHON) tools/find_pythons.py $(PYTHON)) && UV_PROJECT_ENVIRONMENT=build/venv/$(1) \
	$(UV) sync --quiet --frozen --no-install-project --python "$$python" $(2)

# $(call install,NAME,SELECTION): the same, and the wheel.
install = $(call sync,$(1),$(2)) && \
	$(UV) pip install --quiet --offline --no-deps --reinstall --python build/venv/$(1) dist/*.whl

.PHONY: help demo test pytest setup lint types rust docs test-newest test-lowest fuzz bench man lock sbom clean

help: ## list the verbs
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 18

demo: $(PACKAGE) ## build an ESX 3i image and export it; IMAGE=path DEST=folder: do it with yours
	$(call install,demo,--extra cli)
	build/venv/demo/bin/python tools/demo.py $(if $(IMAGE),--image "$(IMAGE)") $(if $(DEST),--dest "$(DEST)")

test: lint types rust pytest ## lint, types, docs and all tests
pytest: docs ## the tests of the built wheel, in the locked environment; PYTHON=3.13: on that one
	$(VENV)/$(PYTEST) $(if $(COVERAGE),--cov --cov-report=term)

setup: $(PACKAGE) ## what test, lint, types and docs need
	$(call install,$(PYTHON),--group dev --group test --group docs --all-extras)
	$(call sync,oracle,--only-group oracle)

lint: setup ## ruff: rules and format
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
types: setup ## mypy --strict; what users run, for each platform
	$(VENV)/bin/mypy
	for platform in darwin win32; do \
		$(VENV)/bin/mypy --platform $$platform --cache-dir .mypy_cache/$$platform src examples || exit; done
rust: setup ## format, clippy and tests of the Rust core, where cargo built it
	@if ls dist/*-abi3-*.whl > /dev/null 2>&1; then cd core && export CARGO_TARGET_DIR="$(CURDIR)/build/cargo" && \
		cargo fmt --check && cargo clippy --quiet --locked --all-targets -- -D warnings && \
		cargo clippy --quiet --locked --features python -- -D warnings && cargo test --quiet --locked; \
	else echo "rust: the wheel was built without it"; fi
docs: setup ## build the site, in build/docs, with warnings as errors
	rm -rf build/docs
	$(VENV)/bin/python -m sphinx --quiet --fail-on-warning --keep-going -d build/doctrees docs build/docs

test-newest: ## the tests on the newest releases of all packages, and the newest Python
test-lowest: ## the tests on the oldest releases that pyproject.toml promises, and the oldest Python
test-newest: PYTHON = newest
test-lowest: OLDEST_RELEASES = --resolution lowest-direct
test-newest test-lowest: docs
	$(UV) venv --quiet --clear --python $(VENV)/bin/python build/venv/$@
	$(UV) pip install --quiet --python build/venv/$@ $(OLDEST_RELEASES) --group test --all-extras -r pyproject.toml dist/*.whl
	build/venv/$@/$(PYTEST)

fuzz: $(UV) ## fuzz every target for FUZZ_SECONDS=60 each; FUZZ_TARGETS="tar zip": only these
	$(call sync,fuzz,--group fuzz --extra crypto)
	PYTHONPATH=src build/venv/fuzz/bin/python -m fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_TARGETS)
bench: bench-main_job ## measure the main job beside other tools; bench-NAME: benchmarks/NAME.py
bench-%: $(PACKAGE)
	$(call install,bench,--group bench --extra cli)
	build/venv/bench/bin/python -m compileall -q build/venv/bench # as pip does when it installs
	build/venv/bench/bin/python benchmarks/$*.py
man: setup ## write the man page anew, from the command line's own help
	$(VENV)/bin/python tools/man_page.py docs/man/vmvisor-image.1
lock: $(UV) ## pin what development needs, in uv.lock; LOCK_FLAGS=--upgrade: the newest of all
	$(UV) lock $(LOCK_FLAGS)
	$(UV) pip compile --quiet --universal --python-version 3.8 --generate-hashes --no-annotate $(LOCK_FLAGS) \
		--custom-compile-command "make lock" --output-file requirements/uv.txt requirements/uv.in
sbom: $(PACKAGE) ## write what a release is made of to dist/, as CycloneDX
	$(call sync,release,--only-group release)
	$(call sync,runtime,)
	build/venv/release/bin/python tools/sbom.py build/venv/runtime
clean: ## remove all that make made
	rm -rf build dist .fuzz .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(UV): tools/find_uv.py requirements/uv.txt
	@$(ANY_PYTHON) tools/find_uv.py $@
# The wheel is built from the sdist, as a release's is. A folder counts as changed when a file in it comes or goes.
$(PACKAGE): $(UV) uv.lock pyproject.toml README.md LICENSE docs/man/vmvisor-image.1 hatch_build.py \
		$(shell find src core -not -path "*__pycache__*" -not -path "*/target/*" -not -path "*/target" -not -name "_core.abi3.so")
	rm -rf dist
	$(call sync,build,--only-group build)
	CARGO_TARGET_DIR="$(CURDIR)/build/cargo" build/venv/build/bin/python -m build --no-isolation > build/build.log 2>&1 || \
		{ cat build/build.log; exit 1; }
	@grep '^vmvisor-image: ' build/build.log
	touch $@
