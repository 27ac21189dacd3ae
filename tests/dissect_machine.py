"""What dissect.hypervisor, another reader, says of a VMX or an OVF, as JSON; run by a Python that has it.

It is called for what it says only: dissect.hypervisor is AGPL, and none of it is in this project.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dissect.hypervisor.descriptor.ovf import OVF
from dissect.hypervisor.descriptor.vmx import VMX

path = Path(sys.argv[1])
if path.suffix == ".ovf":
    with path.open(encoding="utf-8") as file:
        json.dump({"disks": list(OVF(file).disks())}, sys.stdout)
else:
    found = VMX.parse(path.read_text(encoding=sys.argv[2]))
    json.dump({"settings": found.attr, "disks": found.disks(), "encrypted": found.encrypted}, sys.stdout)
