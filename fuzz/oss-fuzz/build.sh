#!/bin/bash -eu
# One fuzzer for each module in fuzz/targets; seeds and dictionary are made at its start, by the forge.
pip3 install ".[crypto]" hypothesis
for module in fuzz/targets/[!_]*.py; do
    name=$(basename "$module" .py)
    fuzzer="$SRC/vmvisor-image/fuzz_$name.py"
    printf 'import sys\n\nfrom fuzz.harness import main\n\nmain("%s", sys.argv[1:])\n' "$name" > "$fuzzer"
    compile_python_fuzzer "$fuzzer" --hidden-import="fuzz.targets.$name" --collect-submodules=vmvisor_image
done
