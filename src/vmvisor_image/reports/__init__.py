"""Reports of a whole image: what is in it, and whether it is sound."""
