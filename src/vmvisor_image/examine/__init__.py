"""What bytes look like: their fields, their entropy, and the formats that are known by their magic alone."""
