"""What dissect.hypervisor, another reader, finds in a vmtar, as JSON; run by a Python that has it.

It is called for what it gives only: dissect.hypervisor is AGPL, and none of it is in this project.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from dissect.hypervisor.util import vmtar

if __name__ == "__main__":
    found = {}
    with Path(sys.argv[1]).open("rb") as stream:
        archive = vmtar.open(fileobj=stream)
        for member in archive.getmembers():
            content = archive.extractfile(member) if member.isreg() else None
            found[member.name] = member.linkname or (
                None if content is None else hashlib.sha256(content.read()).hexdigest()
            )
    print(json.dumps(found))
