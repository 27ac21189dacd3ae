"""What dissect.vmfs, another reader of VMFS, says of each file of a volume, as JSON; run by a Python that has it.

It is called for what it says only: dissect.vmfs is AGPL, and none of it is in this project.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from dissect.vmfs.lvm import LVM
from dissect.vmfs.vmfs import VMFS


def list_files(directory: Any, path: str, found: dict[str, dict[str, Any]]) -> None:
    for entry in directory.iterdir():
        if entry.name in (".", ".."):
            continue
        where = f"{path}/{entry.name}" if path else entry.name
        descriptor = entry.file_descriptor
        if descriptor.is_dir():
            list_files(descriptor, where, found)
        elif descriptor.is_symlink():
            found[where] = {"link": descriptor.link}
        elif descriptor.is_rdm():
            disk = descriptor.rdm_mapping.diskId
            found[where] = {
                "disk": [bytes(part).rstrip(b"\0 ").decode() for part in (disk.vendor, disk.model, disk.id)]
            }
        else:
            digest = hashlib.sha256()
            with descriptor.open() as stream:
                while data := stream.read(1 << 20):
                    digest.update(data)
            found[where] = {
                "size": descriptor.size,
                "modified": descriptor.mtime.timestamp(),
                "mode": descriptor.metadata.mode & 0o7777,
                "owner": descriptor.metadata.uid,
                "group": descriptor.metadata.gid,
                "sha256": digest.hexdigest(),
            }


def main() -> None:
    with Path(sys.argv[1]).open("rb") as file:
        found: dict[str, dict[str, Any]] = {}
        list_files(VMFS(LVM(file).volumes[0].open()).root, "", found)
    json.dump(found, sys.stdout)


main()
