"""Tests of the installed package: `make test` runs them on the built wheel."""
