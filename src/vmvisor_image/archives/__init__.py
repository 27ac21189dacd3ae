"""Archives: what holds files without being a volume of a disk. One module each, which recognises and opens it."""
