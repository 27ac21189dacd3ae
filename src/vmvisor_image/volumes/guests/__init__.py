"""File systems of guests, read by The Sleuth Kit (pytsk3) in a process of its own."""
