"""What dissect.hypervisor, another reader, reads of VMDKs: sizes and SHA-256, as JSON; run by a Python that has it.

It is called for what it gives only: dissect.hypervisor is AGPL, and none of it is in this project.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from dissect.hypervisor.disk import vmdk

if __name__ == "__main__":
    found = []
    for path in sys.argv[1:]:
        disk = vmdk.VMDK(Path(path))
        data = disk.read(disk.size)
        found.append([disk.size, hashlib.sha256(data).hexdigest()])
    print(json.dumps(found))
