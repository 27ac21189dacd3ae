"""Examination of bytes: their fields, their entropy, and the formats that are recognised by their magic alone."""
