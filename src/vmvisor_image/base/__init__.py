"""Foundations of all other packages: locks that survive a fork, limits, caches, names, and the writing of files."""
