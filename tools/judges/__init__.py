"""What other programs say of random inputs, valid and damaged, beside what this library says.

Run from the root of the repository: ``python -m tools.judges --count 500``. Each input comes of its seed. What differs
is printed with the seed that makes it again, and ends the run with 1 unless a class with a reason explains it.
"""
