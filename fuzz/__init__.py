"""Fuzzing: one module per target, each with `seeds` and `one_input`; run with `python -m fuzz TARGET`."""
