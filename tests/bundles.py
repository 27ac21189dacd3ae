"""A forged release of ESXi as packages, as a bundle of them, and as the installer CD of the same image profile."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path

from tests.media import iso, write_tree
from vmvisor_image.packages.descriptor import parse_descriptor
from vmvisor_image.testing.forge_modules import kernel_elf, tar_archive, vmtar_archive
from vmvisor_image.testing.forge_packages import (
    ForgedPayload,
    ForgedRelationships,
    descriptor,
    image_profile,
    offline_bundle,
    vib,
)

PROFILE = "ESXi-8.0U3-24022510-standard"
VERSION = "8.0.3-0.0.24022510"
NEEDS_API = ForgedRelationships(depends=[("vmkapi_2_13_0_0",)], replaces=())


def payload(
    name: str, kind: str = "vgz", order: int | None = None, file_name: str | None = None, *, content: bytes = b""
) -> ForgedPayload:
    """A payload, whose content is made of its name unless it is given."""
    files = {f"usr/lib/vmware/{name}": f"the content of {name}".encode() * 100}
    if content:
        inner = content
    elif kind == "vgz":
        inner = vmtar_archive(files)
    elif kind == "tgz":
        inner = tar_archive(files)
    elif kind == "boot":
        inner = kernel_elf(f"{name} 9.9.9".encode())
    else:
        inner = f"{kind} {name}".encode() * 100
    is_compressed = kind in ("boot", "vgz", "tgz")
    data = gzip.compress(inner, mtime=0) if is_compressed else inner
    return ForgedPayload(name, data, inner, kind, tuple(files) if kind in ("vgz", "tgz") else (), order, file_name)


BASE = (
    payload("b", "boot", 10),
    payload("jumpstrt", "boot", 47, "jumpstrt.gz"),
    payload("k", "boot", 50),
    payload("procfs", "boot", 101),
    payload("vmx", order=100),
    payload("s", order=100),
    payload("btldr"),
    payload("mboot.c32", "boot_com32_bios"),
    payload("BOOTx64.EFI", "boot_loader_efi"),
    payload("crypto64.efi", "boot_loader_efi"),
    payload("precheck", "upgrade"),
)


def package(
    name: str,
    *payloads: ForgedPayload,
    version: str = "1.0-1vmw.803.0.0.24022510",
    vendor: str = "VMW",
    relationships: ForgedRelationships = NEEDS_API,
    kind: str = "bootbank",
    level: str = "certified",
    signature: bytes = b"",
) -> tuple[bytes, bytes]:
    """Description and bytes of a package."""
    text = descriptor(
        name,
        payloads,
        version=version,
        vendor=vendor,
        relationships=relationships,
        kind=kind,
        acceptance_level=level,
    )
    return text, vib(text, payloads, signature)


BASE_PROVIDES = ForgedRelationships(
    depends=(), replaces=(), provides=[("vmkapi_2_13_0_0",), ("esx-version", "=", "8.0.3")]
)
RELEASE = (
    package("tools-light", payload("tools", "tgz"), version="12.4.0", vendor="VMware", kind="locker"),
    package("esx-xserver", payload("xorg", order=255), version=VERSION, vendor="VMware"),
    package("esx-base", *BASE, version=VERSION, vendor="VMware", relationships=BASE_PROVIDES, signature=b"signed"),
    package("cpu-microcode", payload("uc_intel", "boot", 60), version=VERSION, vendor="VMware"),
    package("vmkusb", payload("vmkusb")),
    package("lsi-msgpt2", payload("lsi-msgpt2")),
    package("lsi-msgpt35", payload("lsi-msgpt35")),
    package("atlantic", payload("atlantic")),
)
ORDER = (
    *("b.b00", "jumpstrt.gz", "k.b00", "uc_intel.b00", "procfs.b00", "vmx.v00", "s.v00"),
    *("atlantic.v00", "lsi_msgp.v00", "lsi_msgp.v01", "vmkusb.v00", "btldr.v00", "tools.t00", "xorg.v00"),
)
"""Names of kernel and modules in load order, written down by hand from the rules."""
OF_MODULES = {
    "b.b00": "b",
    "jumpstrt.gz": "jumpstrt",
    "k.b00": "k",
    "uc_intel.b00": "uc_intel",
    "procfs.b00": "procfs",
    "vmx.v00": "vmx",
    "s.v00": "s",
    "atlantic.v00": "atlantic",
    "lsi_msgp.v00": "lsi-msgpt2",
    "lsi_msgp.v01": "lsi-msgpt35",
    "vmkusb.v00": "vmkusb",
    "btldr.v00": "btldr",
}
LOADERS = {"mboot.c32": "mboot.c32", "efi/boot/bootx64.efi": "BOOTx64.EFI", "efi/boot/crypto64.efi": "crypto64.efi"}


def vib_id(text: bytes) -> str:
    return parse_descriptor(text).id


def profile_of(
    packages: tuple[tuple[bytes, bytes], ...] = RELEASE,
    name: str = PROFILE,
    names: Mapping[str, Mapping[str, str]] | None = None,
) -> bytes:
    """Image profile of packages, without the names of files unless they are given."""
    return image_profile(name, {vib_id(text): (names or {}).get(vib_id(text), {}) for text, _ in packages})


def bundle_of(
    packages: tuple[tuple[bytes, bytes], ...] = RELEASE,
    *profiles: bytes,
    is_stored: bool = False,
) -> bytes:
    """A bundle of packages, with the image profile of all of them unless others are given."""
    texts, data = zip(*packages, strict=True)
    return offline_bundle(data, texts, profiles=profiles or (profile_of(packages),), is_stored=is_stored)


def installer_cd(folder: Path, database: bytes) -> Path:
    """The installer CD of the release, by xorriso, with what its builder writes written down by hand."""
    by_name = {each.name: each.data for each in (*BASE, *(payload(n) for n in ("atlantic", "vmkusb")))}
    by_name |= {name: payload(name).data for name in ("lsi-msgpt2", "lsi-msgpt35")}
    by_name["uc_intel"] = payload("uc_intel", "boot").data
    files = {file: by_name[name] for file, name in (OF_MODULES | LOADERS).items()}
    files |= {"tools.t00": payload("tools", "tgz").data, "xorg.v00": payload("xorg").data, "imgdb.tgz": database}
    modules = " --- ".join(f"/{name}" for name in (*ORDER[1:], "imgdb.tgz"))
    files["boot.cfg"] = (
        "bootstate=0\ntitle=Loading ESXi installer\ntimeout=5\nprefix=\nkernel=/b.b00\nkernelopt=runweasel cdromBoot\n"
        f"modules={modules}\nbuild={VERSION}\nupdated=0\n"
    ).encode()
    return iso(write_tree(folder / "cd", files), folder / "installer.iso")
