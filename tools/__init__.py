"""Programs for those who work on the project; none is a part of the package."""
