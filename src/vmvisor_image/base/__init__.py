"""What every other room rests on: locks that survive a fork, limits, caches, names, and how files are written."""
