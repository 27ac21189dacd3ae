"""Compressions, one module each: what recognises one and opens what is inside, and the way through several of them."""
