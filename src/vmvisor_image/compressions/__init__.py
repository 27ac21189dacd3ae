"""Compressions: one module for each format, to recognise it and open its content, and the removal of nested ones."""
