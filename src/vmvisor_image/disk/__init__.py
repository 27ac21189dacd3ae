"""The decoded disk: the image, its partitions, and what each of them is for."""
