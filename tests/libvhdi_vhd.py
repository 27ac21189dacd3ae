"""What libvhdi, another reader, finds in VHD and VHDX disks: SHA-256 of each, as JSON; run by Debian's Python.

A parent is opened by the last part of the name that the disk has for it, beside the disk. It is called for what it
gives only: libvhdi is LGPL, and none of it is in this project.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pyvhdi

KEPT: list[Any] = []
"""All disks: a child keeps no reference to its parent."""


def opened(path: Path) -> Any:
    """The disk with its parents."""
    disk = pyvhdi.file()
    KEPT.append(disk)
    disk.open(str(path))
    name = disk.get_parent_filename()
    if name is not None:
        disk.set_parent(opened(path.with_name(re.split(r"[/\\\\]", name)[-1])))
    return disk


if __name__ == "__main__":
    found = {}
    for argument in sys.argv[1:]:
        disk = opened(Path(argument))
        digest = hashlib.sha256()
        for at in range(0, disk.media_size, 1 << 20):
            digest.update(disk.read_buffer_at_offset(min(1 << 20, disk.media_size - at), at))
        found[argument] = digest.hexdigest()
    print(json.dumps(found))
