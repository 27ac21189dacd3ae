"""Archives, which hold files without being a volume of a disk: one module for each format, to recognise and read it."""
