"""What dissect.hypervisor, another reader, says of a VMX, as JSON; run by a Python that has it.

It is called for what it says only: dissect.hypervisor is AGPL, and none of it is in this project.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dissect.hypervisor.descriptor.vmx import VMX

found = VMX.parse(Path(sys.argv[1]).read_text(encoding=sys.argv[2]))
json.dump({"settings": found.attr, "disks": found.disks(), "encrypted": found.encrypted}, sys.stdout)
