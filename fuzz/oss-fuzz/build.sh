#!/bin/bash -eu
# One fuzzer for each module in fuzz/targets; seeds and dictionary are made at its start, by the forge.
# What is installed is what uv.lock pins, with its hashes, except atheris, which the base image has.
pip3 install --require-hashes -r requirements/uv.txt
uv export --quiet --frozen --no-emit-project --no-emit-package atheris --extra crypto --group build --group fuzz \
    --output-file "$WORK/pinned.txt"
pip3 install --require-hashes -r "$WORK/pinned.txt"
pip3 install --no-build-isolation --no-deps .
for module in fuzz/targets/[!_]*.py; do
    name=$(basename "$module" .py)
    fuzzer="$SRC/vmvisor-image/fuzz_$name.py"
    printf 'import sys\n\nfrom fuzz.harness import main\n\nmain("%s", sys.argv[1:])\n' "$name" > "$fuzzer"
    compile_python_fuzzer "$fuzzer" --hidden-import="fuzz.targets.$name" --collect-submodules=vmvisor_image
done
