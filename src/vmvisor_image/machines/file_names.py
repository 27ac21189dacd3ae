"""Files of a virtual machine beside its disks, by the suffixes of their names.

Source: vSphere Web Services API, ``VirtualMachineFileLayoutExFileType``.
"""

from __future__ import annotations

from typing import Final

from vmvisor_image.base.names import fold_name

_KINDS: Final = {
    ".nvram": "non-volatile memory",
    ".vmem": "memory of a snapshot, or of its suspended state",
    ".vmsd": "list of its snapshots",
    ".vmsn": "state of a snapshot",
    ".vmss": "suspended state",
    ".vmx": "configuration",
    ".vmxf": "extended configuration",
    ".vswp": "swap file",
}
"""Words for each kind of file."""


def kind_by_name(name: str) -> str | None:
    """Words for the kind of file that a name stands for; None for any other name. The content may be another one."""
    found = _KINDS.get(f".{fold_name(name).rpartition('.')[2]}")
    return None if found is None else f"{found} of a virtual machine, by its name"
