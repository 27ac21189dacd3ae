# The verbs of this project; .ci/run uses the same. All paths are relative, so the folder may have any name.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# Any Python 3 that runs; it only has to find the others.
PYTHON = $(shell for python in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	$$python -c "" 2>/dev/null && echo $$python && break; done)

# The oldest supported Python on this machine and the newest, such as "3.11 3.13". help and clean need neither.
ifneq ($(filter-out help clean,$(MAKECMDGOALS)),)
VERSIONS := $(shell $(PYTHON) tools/find_pythons.py | cut -d " " -f 1)
ifeq ($(VERSIONS),)
$(error No usable Python was found, see above)
endif
endif
OLDEST := $(firstword $(VERSIONS))
NEWEST := $(lastword $(VERSIONS))

# Each environment has a stamp: an empty file that is newer than what it was made from.
DEV := .venv/dev/made
CREATED := $(VERSIONS:%=.venv/py%/created)
INSTALLED := $(VERSIONS:%=.venv/py%/installed)
ORACLE := .venv/oracle/made
SITE := build/docs/made
TOOLS := .venv/tools/made
TESTS := $(VERSIONS:%=test-%)

FUZZ_SECONDS = 60
FUZZ_TARGETS = $(basename $(notdir $(wildcard fuzz/targets/[!_]*.py)))

.PHONY: help setup lint types test docs demo fuzz bench bench-bzip2 bench-vmfs bench-fleet man lock sbom clean $(TESTS)

help: ## list the verbs
	@sed -n 's/^\([a-z0-9-]*\):.*## /make \1\t/p' Makefile | expand -t 18

setup: $(DEV) $(INSTALLED) $(ORACLE) ## build the wheel and make the virtual environments, in .venv

lint: $(DEV) ## ruff: rules and format
	.venv/dev/bin/python -m ruff check
	.venv/dev/bin/python -m ruff format --check

types: $(DEV) ## mypy --strict
	.venv/dev/bin/python -m mypy

test: lint types docs $(TESTS) ## lint, types, docs, then all tests of the built wheel on the oldest and the newest Python

# Coverage is measured, and must hold, on one of the two.
test-$(NEWEST): COVERAGE := --cov --cov-report=term
$(TESTS): test-%: .venv/py%/installed $(ORACLE) $(SITE)
	.venv/py$*/bin/python -m pytest -n auto $(COVERAGE) $(PYTEST_ARGS)

docs: $(SITE) ## build the site, in build/docs, with warnings as errors

demo: .venv/py$(OLDEST)/installed ## build an ESX 3i image and export it; IMAGE=path DEST=folder: do it with yours
	.venv/py$(OLDEST)/bin/python tools/demo.py $(if $(IMAGE),--image "$(IMAGE)") $(if $(DEST),--dest "$(DEST)")

fuzz: .venv/fuzz/made ## fuzz every target for FUZZ_SECONDS=60 each; FUZZ_TARGETS="tar zip": only these
	mkdir -p .fuzz
	for target in $(FUZZ_TARGETS); do mkdir -p .fuzz/$$target && .venv/fuzz/bin/python -m fuzz $$target .fuzz/$$target \
		-max_total_time=$(FUZZ_SECONDS) -timeout=25 -rss_limit_mb=2048 -artifact_prefix=.fuzz/$$target- \
		-print_final_stats=1 || exit 1; done

bench: .venv/bench/installed ## measure the main job beside other tools
	.venv/bench/bin/python benchmarks/main_job.py

bench-bzip2: .venv/bench/installed ## measure the bzip2 reader beside other tools, half an hour; what each says of tricky files
	.venv/bench/bin/python benchmarks/bzip2.py
	.venv/bench/bin/python benchmarks/bzip2_phases.py
	.venv/bench/bin/python tools/tricky_table.py

bench-vmfs: .venv/bench/installed ## measure VMFS beside vmfs-fuse
	.venv/bench/bin/python benchmarks/vmfs.py

bench-fleet: .venv/bench/installed ## measure 200 images at 1 and 2 workers, half an hour: throughput, and how memory grows
	.venv/bench/bin/python benchmarks/fleet.py

man: $(DEV) ## write the man page anew, from the command line's own help
	.venv/dev/bin/python tools/man_page.py docs/man/vmvisor-image.1

# A lock holds for every Python and platform; LOCK_FLAGS=--upgrade takes the newest releases.
lock = .venv/tools/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command "make lock" $(LOCK_FLAGS) --output-file requirements/$(1).txt

lock: $(TOOLS) ## pin what development needs, with hashes, in requirements/; LOCK_FLAGS=--upgrade: the newest of all
	$(call lock,runtime) pyproject.toml
	$(call lock,dev) --extra cli --extra dev --extra test pyproject.toml requirements/build.in
	$(call lock,tools) requirements/tools.in

sbom: dist/built $(TOOLS) .venv/sbom/made ## write what a release is made of to dist/, as CycloneDX, validated; twice, to compare
	for name in sbom.cdx.json .again.cdx.json; do .venv/tools/bin/cyclonedx-py environment .venv/sbom \
		--pyproject pyproject.toml --mc-type library --output-reproducible --validate -o dist/$$name || exit; done
	cmp dist/sbom.cdx.json dist/.again.cdx.json
	rm dist/.again.cdx.json

clean: ## remove all that make made
	rm -rf .venv .fuzz build dist .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# $(call new_venv,VERSION): an empty virtual environment in the target's folder.
new_venv = rm -rf $(@D) && "$$($(PYTHON) tools/find_pythons.py $(1))" -m venv $(@D)

# pip of the virtual environment in the target's folder.
pip_install = $(@D)/bin/python -m pip install --quiet

# The tools, and what they need to see of the packages in use: what the lock says and nothing else, also to build with.
$(DEV): pyproject.toml requirements/dev.txt
	$(call new_venv,$(OLDEST))
	$(pip_install) --require-hashes --requirement requirements/dev.txt
	$(pip_install) --no-build-isolation --no-deps --editable .
	touch $@

# The wheel is built from the sdist, as a release's is. A folder counts as changed when a file in it comes or goes.
dist/built: $(DEV) README.md LICENSE docs/man/vmvisor-image.1 $(shell find src -not -path "*__pycache__*")
	rm -rf dist
	.venv/dev/bin/python -m build --no-isolation
	touch $@

# The wheel with all it needs, in the newest releases that pyproject.toml allows, as users get them: not those of the
# lock. Made anew only when pyproject.toml changes...
$(CREATED): .venv/py%/created: pyproject.toml | dist/built
	$(call new_venv,$*)
	$(pip_install) "$$(echo dist/*.whl)[cli,test]"
	touch $@

# ...while a new wheel replaces the old one in place.
$(INSTALLED): .venv/py%/installed: .venv/py%/created dist/built
	$(pip_install) --force-reinstall --no-deps dist/*.whl
	touch $@

# Another reader of VMFS, which tests run beside ours; AGPL, so it stays by itself.
$(ORACLE): Makefile
	$(call new_venv,$(OLDEST))
	$(pip_install) dissect.vmfs==3.13
	touch $@

.venv/docs/created: pyproject.toml | dist/built
	$(call new_venv,$(OLDEST))
	$(pip_install) "$$(echo dist/*.whl)[cli,docs,fsspec]"
	touch $@

.venv/docs/installed: .venv/docs/created dist/built
	$(pip_install) --force-reinstall --no-deps dist/*.whl
	touch $@

# Each time anew: Sphinx warns only of the pages that it reads. Its reference is of the built wheel.
$(SITE): .venv/docs/installed CHANGELOG.md SUPPORTED.md $(shell find docs -type f -not -path "*__pycache__*")
	rm -rf build/docs
	.venv/docs/bin/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env -d build/doctrees docs build/docs
	touch $@

# atheris, and the library as it is in src.
.venv/fuzz/made: pyproject.toml
	$(call new_venv,$(OLDEST))
	$(pip_install) --editable ".[crypto,fuzz]" "hypothesis>=6.100"
	touch $@

# What writes the locks and the SBOM.
$(TOOLS): requirements/tools.txt
	$(call new_venv,$(OLDEST))
	$(pip_install) --require-hashes --requirement requirements/tools.txt
	touch $@

# What a release needs to run, in the pinned versions, without pip.
.venv/sbom/made: requirements/runtime.txt | $(DEV)
	rm -rf $(@D)
	.venv/dev/bin/python -m venv --without-pip $(@D)
	.venv/dev/bin/python -m pip --python $(@D) install --quiet --require-hashes --requirement requirements/runtime.txt
	touch $@

.venv/bench/installed: pyproject.toml dist/built
	$(call new_venv,$(OLDEST))
	$(pip_install) "$$(echo dist/*.whl)[bench,cli]"
	touch $@
