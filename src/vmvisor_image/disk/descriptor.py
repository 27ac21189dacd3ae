"""A new descriptor for a flat VMDK extent whose own is lost.

Sources: VMware, Virtual Disk Format 5.0, "The Descriptor"; VMware KB 1002511 and 1026254 (geometry by size);
descriptors of ESXi.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args

from vmvisor_image.base.destination import check_replaceable, writing
from vmvisor_image.base.names import fold_name
from vmvisor_image.errors import (
    CorruptImage,
    DestinationExists,
    InvalidArgument,
    PathNotFound,
    SourceError,
    UnsafeName,
)
from vmvisor_image.files.file import Directory, File
from vmvisor_image.files.tree import FileTree
from vmvisor_image.layers.vmdk import probe
from vmvisor_image.schemas.vmdk import DESCRIPTOR_MAGIC, MAGIC, SparseExtentHeader
from vmvisor_image.streams.opening import SourceLike, open_source
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import Source
from vmvisor_image.streams.sources import FileSource

AdapterType = Literal["lsilogic", "buslogic", "ide", "pvscsi"]
"""Controller that a descriptor names; the guest's driver has to fit it where the disk is started again."""

_SECTOR: Final = 512
_STRUCTURE: Final = "flat extent"
_GIB: Final = (1 << 30) // _SECTOR
_USUAL_ID: Final = 0xFFFF_FFFE
_NO_ID: Final = 0xFFFF_FFFF
"""Content id that stands for none."""
_FLAT: Final = re.compile(r"(.+)-flat\.vmdk", re.IGNORECASE)
_LARGEST: Final = 1 << 16
"""Number of bytes of a neighbour's descriptor that are read."""
_MOST_NEIGHBOURS: Final = 10_000
_HINT: Final = re.compile(rb'^[ \t]*parentFileNameHint[ \t]*=[ \t]*"([^"\r\n]*)"', re.MULTILINE | re.IGNORECASE)
_PARENT_ID: Final = re.compile(rb"^[ \t]*parentCID[ \t]*=[ \t]*([0-9a-f]{1,8})[ \t]*\r?$", re.MULTILINE | re.IGNORECASE)


def rebuild_descriptor(
    flat: SourceLike,
    dest: str | os.PathLike[str],
    *,
    adapter_type: AdapterType = "lsilogic",
    content_id: int | None = None,
    beside: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Path:
    """Path of a new descriptor for a flat extent (``…-flat.vmdk``), with which other programs open it as a disk.

    The descriptor names the extent as a file in its own directory, so the two have to lie beside each other in the end:
    copy or link the extent there. The extent itself is only read, and nothing is written beside it unless asked for.

    Args:
        flat: The extent, by a path or URL, or a `File` of a datastore or archive.
        dest: Path of the descriptor, which must not exist.
        adapter_type: Controller to name. The lost descriptor's is not known; it matters only to a machine that starts
            from the disk.
        content_id: Content id to write; None for the one that the snapshots beside the extent record of their parent,
            with which they still open, or the usual one where there are none.
        beside: Whether `dest` may lie in the directory of the extent.
        storage_options: See `Image.open`.

    Raises:
        OSError: The extent can't be opened.
        CorruptImage: The extent is empty or does not end with a sector, or it is no flat extent.
        UnsafeName: Its name can't be written into a descriptor.
        InvalidArgument: The source has no name, an argument is out of range, or the snapshots disagree about the
            content id.
        DestinationExists: `dest` is there already, or lies beside the extent.
        DestinationFailed: `dest` can't be written.
    """
    if content_id is not None and not 0 <= content_id < _NO_ID:
        raise InvalidArgument(f"content_id must be 0 to 0xfffffffe, not {content_id:#x}")
    if adapter_type not in get_args(AdapterType):
        raise InvalidArgument(f"adapter_type must be one of {', '.join(get_args(AdapterType))}, not {adapter_type!r}")
    target = Path(dest)
    check_replaceable(target, overwrite=False)
    with open_source(flat, storage_options) as opened:
        source = opened.source
        name = source.name if isinstance(source, File) else opened.name
        if name is None:
            raise InvalidArgument("the extent has no name that a descriptor could have: give its path")
        if '"' in name or not name.isprintable():
            raise UnsafeName(f"a descriptor can't have the name {name!r}", structure=_STRUCTURE)
        if not beside and isinstance(source, FileSource):
            _check_elsewhere(target, Path(source.path))
        size = source.size
        if not size or size % _SECTOR:
            raise CorruptImage(
                "it is not a whole number of sectors", structure=_STRUCTURE, expected="a multiple of 512", found=size
            )
        if probe(read_up_to(source, 0, _SECTOR)):
            raise CorruptImage("it is another VMDK, which opens as it is", structure=_STRUCTURE, offset=0)
        if content_id is None:
            content_id = _id_by_snapshots(source, name, target.name)
    text = _descriptor(name, size // _SECTOR, content_id, adapter_type).encode()
    with writing(target), target.open("xb") as output:
        output.write(text)
    return target


def _check_elsewhere(target: Path, extent: Path) -> None:
    try:
        is_same = target.parent.samefile(extent.parent)
    except OSError:  # a directory is not there, which writing reports
        return
    if is_same:
        raise DestinationExists(
            f"{target} would lie beside the extent; choose another folder, or allow it by beside=True"
        )


def _descriptor(name: str, sectors: int, content_id: int, adapter_type: str) -> str:
    # VMware KB 1026254: the geometry that the BIOS of a SCSI controller gives a disk of that size.
    heads, per_track = (64, 32) if sectors <= _GIB else (128, 32) if sectors <= 2 * _GIB else (255, 63)
    return (
        "# Disk DescriptorFile\n"
        "version=1\n"
        'encoding="UTF-8"\n'
        f"CID={content_id:08x}\n"
        "parentCID=ffffffff\n"
        'createType="vmfs"\n'
        "\n"
        "# Extent description\n"
        f'RW {sectors} VMFS "{name}"\n'
        "\n"
        "# The Disk Data Base\n"
        "#DDB\n"
        "\n"
        f'ddb.adapterType = "{adapter_type}"\n'
        f'ddb.geometry.cylinders = "{sectors // (heads * per_track)}"\n'
        f'ddb.geometry.heads = "{heads}"\n'
        f'ddb.geometry.sectors = "{per_track}"\n'
    )


def _id_by_snapshots(source: Source, name: str, descriptor: str) -> int:
    """Content id that the disks beside the extent record of their parent, where that is this one."""
    match = _FLAT.fullmatch(name)
    wanted = {fold_name(descriptor)} | ({fold_name(f"{match[1]}.vmdk")} if match else set())
    found: dict[int, str] = {}
    for path, text in _descriptors_beside(source, name):
        hint, parent = _HINT.search(text), _PARENT_ID.search(text)
        if hint is None or parent is None or (number := int(parent[1], 16)) == _NO_ID:
            continue
        last = re.split(r"[/\\]", hint[1].decode("utf-8", "replace"))[-1]
        if fold_name(last) in wanted:
            found.setdefault(number, path)
    if len(found) > 1:
        listed = ", ".join(f"{number:08x} in {path!r}" for number, path in found.items())
        raise InvalidArgument(f"the snapshots beside it disagree about its content id ({listed}): give content_id")
    return next(iter(found), _USUAL_ID)


def _descriptors_beside(source: Source, name: str) -> Iterator[tuple[str, bytes]]:
    """Name and descriptor of each VMDK in the directory of the extent that can be read."""
    for neighbour in _neighbours(source):
        own = neighbour.name
        if own == name or not fold_name(own).endswith(".vmdk"):
            continue
        try:
            with open_source(neighbour) as opened:
                yield own, _descriptor_of(opened.source)
        except (CorruptImage, SourceError, OSError):  # another one that is damaged says nothing
            continue


def _neighbours(source: Source) -> Iterator[File | Path]:
    """Files in the directory of the extent; none at a URL, which can't be listed everywhere."""
    if isinstance(source, FileSource):
        for number, path in enumerate(sorted(Path(source.path).parent.iterdir())):
            if number < _MOST_NEIGHBOURS and path.is_file():
                yield path
    elif isinstance(source, File) and isinstance(files := getattr(source.home, "files", None), FileTree):
        try:
            folder = files.root.joinpath(source.path.rpartition("/")[0])
        except PathNotFound:
            return
        if isinstance(folder, Directory):
            yield from (each for each in folder if isinstance(each, File))


def _descriptor_of(source: Source) -> bytes:
    """Text of a VMDK's descriptor, which is the file itself or embedded in it; empty for any other file."""
    head = read_up_to(source, 0, _LARGEST)
    if head.startswith(DESCRIPTOR_MAGIC):
        return head
    if not head.startswith(MAGIC):
        return b""
    header = SparseExtentHeader.parse(head)
    if header.descriptor_offset >> 40:
        return b""
    return read_up_to(source, header.descriptor_offset * _SECTOR, min(header.descriptor_size * _SECTOR, _LARGEST))
