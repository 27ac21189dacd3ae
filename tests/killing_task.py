"""A task for processes of a pool, by itself: each process that is started imports the module that has it."""

from __future__ import annotations

import os
import signal
from typing import Any

from vmvisor_image.fleet import Row, scan_one


def die(source: Any) -> Row:
    """A task that one image kills, as the kernel kills what takes too much memory."""
    if "disk2" in str(source):
        os.kill(os.getpid(), signal.SIGKILL)
    return scan_one(source)
