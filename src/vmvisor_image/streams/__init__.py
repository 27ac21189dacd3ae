"""Runs of bytes: where they come from, views of a part of them, and the way from what a caller gives to one of them."""
