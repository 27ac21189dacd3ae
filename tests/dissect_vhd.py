"""What dissect.hypervisor, another reader, finds in VHD and VHDX disks: SHA-256 of each, as JSON; run by its Python.

It is called for what it gives only: dissect.hypervisor is AGPL, and none of it is in this project.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from dissect.hypervisor.disk.vhd import VHD
from dissect.hypervisor.disk.vhdx import VHDX

if __name__ == "__main__":
    found = {}
    for name in sys.argv[1:]:
        path = Path(name)
        disk = VHD(path.open("rb")) if path.suffix in (".vhd", ".avhd") else VHDX(path)
        found[name] = hashlib.sha256(disk.read(disk.size)).hexdigest()
    print(json.dumps(found))
