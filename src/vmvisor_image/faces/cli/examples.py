"""Two examples of each command, for its help and the man page; a test runs each of them that ends by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

EXAMPLES: Final[Mapping[str, tuple[str, ...]]] = {
    "info": ("vmvisor-image info esx.dd.bz2", "vmvisor-image info --explain esx.dd.bz2"),
    "ls": ("vmvisor-image ls esx.dd.bz2 Hypervisor1", "vmvisor-image ls -l esx.dd.bz2 Hypervisor1/"),
    "tree": ("vmvisor-image tree esx.dd.bz2", "vmvisor-image tree esx.dd.bz2 Hypervisor1"),
    "find": ("vmvisor-image find esx.dd.bz2 '*.tgz'", "vmvisor-image find -l esx.dd.bz2 'Hypervisor1/*.gz'"),
    "diff": ("vmvisor-image diff esx.dd.bz2 other.dd.bz2", "vmvisor-image diff --json esx.dd.bz2 other.dd.bz2"),
    "cat": (
        "vmvisor-image cat esx.dd.bz2 Hypervisor1/boot.cfg",
        "vmvisor-image cat esx.dd.bz2 Hypervisor1 > Hypervisor1.img",
    ),
    "extract": (
        "vmvisor-image extract esx.dd.bz2 files",
        "vmvisor-image extract esx.dd.bz2 'Hypervisor1/*.tgz' modules",
    ),
    "sha256": (
        "vmvisor-image sha256 esx.dd.bz2 > SHA256SUMS",
        "vmvisor-image sha256 esx.dd.bz2 'Hypervisor1/*.tgz'",
    ),
    "hexdump": (
        "vmvisor-image hexdump esx.dd.bz2 -s 0x1b0 -n 80",
        "vmvisor-image hexdump esx.dd.bz2 Hypervisor1/vmkernel.gz -n 64",
    ),
    "pxe": (
        "vmvisor-image pxe esx.dd.bz2 tftp",
        "vmvisor-image pxe esx.dd.bz2 tftpboot --prefix esx --ipxe",
    ),
    "system": ("vmvisor-image system esx.dd.bz2", "vmvisor-image system --bank Hypervisor1 --json esx.dd.bz2"),
    "host": (
        "vmvisor-image host esx.dd.bz2",
        "vmvisor-image host --json esx.dd.bz2",
    ),
    "provenance": (
        "vmvisor-image provenance esx.dd.bz2",
        "vmvisor-image provenance --json --files esx.dd.bz2",
    ),
    "module": (
        "vmvisor-image module esx.dd.bz2 Hypervisor1/oem.tgz",
        "vmvisor-image module oem.tgz etc/shared.conf",
    ),
    "machines": ("vmvisor-image machines datastore.img", "vmvisor-image machines --json datastore.img"),
    "archive": ("vmvisor-image archive installer.iso", "vmvisor-image archive oem.tgz etc/shared.conf"),
    "convert": (
        "vmvisor-image convert esx.dd.bz2 esx.dd.zst",
        "cat esx.dd.bz2 | vmvisor-image convert - piped.dd.zst",
    ),
    "index": ("vmvisor-image index esx.dd.bz2", "vmvisor-image index --with-data esx.dd.bz2"),
    "verify": ("vmvisor-image verify esx.dd.bz2", "vmvisor-image verify --manifest SHA256SUMS esx.dd.bz2"),
    "scan": ("vmvisor-image scan '*.bz2'", "vmvisor-image scan '*.bz2' --out report.jsonl"),
    "mount": ("vmvisor-image mount esx.dd.bz2 mnt", "vmvisor-image mount --background esx.dd.bz2 mnt"),
    "browse": ("vmvisor-image browse esx.dd.bz2", "vmvisor-image browse https://host/esx.dd.bz2"),
    "completion": (
        "source <(vmvisor-image completion bash)",
        "vmvisor-image completion fish > vmvisor-image.fish",
    ),
}
