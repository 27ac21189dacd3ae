"""Exit status of the commands."""

from typing import Final

DONE: Final = 0
"""Exit status of a successful command."""
BAD_INPUT: Final = 1
"""Exit status where the input is damaged or unsuitable."""
MISUSE: Final = 2
"""Exit status of a command that can't be carried out as given."""
