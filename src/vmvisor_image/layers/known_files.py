"""Archives of hosts and installers that hold files but no disk, recognised by their contents.

Sources: published VIBs and offline bundles of 5.1 to 9.0, and the scripts of ESXi 6.7 that write the saved
configuration and support bundles, read for the facts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from vmvisor_image.errors import CorruptImage, PathNotFound, SourceError
from vmvisor_image.files.tree import FileTree

_HEAD: Final = 4096
"""Number of bytes at the start of a member that are examined."""
_VIB: Final = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<vib[\s>]", re.DOTALL)
_BUNDLE: Final = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<vendorList[\s/>]", re.DOTALL)
_MANIFEST: Final = re.compile(rb"^(RELEASELEVEL|UUID|KERNELOPTS|USEROPTS)=", re.MULTILINE)
_STATES: Final = ("local.tgz", "local.tgz.ve")
_SUPPORT: Final = re.compile(r"([^/]+)/commands/[^/]+")


_AND_PXE: Final = ", and `vmvisor-image pxe SRC DEST` exports an image profile of it, where it has one"


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A known kind of file that holds no disk."""

    name: str
    """Description of the kind, in words."""
    command: str
    """Command that reads the file, with SRC for its path."""
    also: str = ""
    """Text behind that, of what else can be done with it."""


def recognise(kind: str, files: FileTree) -> KnownFile | None:
    """Known kind of an archive that holds no disk; None for any other archive, which may hold one.

    Args:
        kind: Format of the archive, as `Archive.kind`.
        files: Files in the archive.
    """
    if kind == "ar":
        if _VIB.match(_head(files, "descriptor.xml")):
            return KnownFile("a VIB, a package of ESXi", "vmvisor-image archive SRC")
    elif kind == "zip":
        if _BUNDLE.match(_head(files, "index.xml")):
            return KnownFile("an offline bundle with VIBs", "vmvisor-image archive SRC", _AND_PXE)
    elif kind == "tar":
        return _recognise_tar(files)
    return None


def _recognise_tar(files: FileTree) -> KnownFile | None:
    if "state.tgz" in files and _MANIFEST.search(_head(files, "Manifest.txt")):
        return KnownFile(
            "the saved configuration of a host (configBundle)", "vmvisor-image archive SRC state.tgz local.tgz --list"
        )
    for name in _STATES:
        if name in files:
            command = f"vmvisor-image archive SRC{f' {name} --list' if name == _STATES[0] else ''}"
            return KnownFile("the saved state of a host (state.tgz)", command)
    paths = list(files)
    if any(path.startswith("etc/vmware/") for path in paths) and all(path.startswith("etc/") for path in paths):
        return KnownFile("the configuration of a host (local.tgz), or a module with one", "vmvisor-image archive SRC")
    tops = {path.partition("/")[0] for path in paths}
    if len(tops) == 1 and (found := next(filter(None, map(_SUPPORT.fullmatch, paths)), None)) is not None:
        is_of_host = any(path.startswith((f"{found[1]}/etc/vmware/", f"{found[1]}/var/log/")) for path in paths)
        if is_of_host and b"\0" not in _head(files, found[0]):
            return KnownFile("a support bundle of a host (vm-support)", "vmvisor-image archive SRC")
    return None


def _head(files: FileTree, path: str) -> bytes:
    try:
        file = files[path]
        return file.read_at(0, min(file.size, _HEAD))
    except (PathNotFound, CorruptImage, SourceError):
        return b""
