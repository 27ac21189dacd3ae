"""Reports on a whole image: its content, and whether it is sound."""
