"""Partition tables: one module each, which finds the partitions of a disk without reading their content."""
