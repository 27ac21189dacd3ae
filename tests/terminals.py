"""Terminals of any width for programs that are run, and all that such a program shows."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios


def open_terminal(columns: int) -> tuple[int, int]:
    """Descriptors of a new terminal: the controlling end, and the program's end, which the caller closes."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    return controller, terminal


def read_terminal(controller: int) -> bytes:
    """All that is shown until the other end is closed; closes this end."""
    shown = b""
    while True:
        try:
            piece = os.read(controller, 65536)
        except OSError:  # the other end was closed
            break
        if not piece:
            break
        shown += piece
    os.close(controller)
    return shown
