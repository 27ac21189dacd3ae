"""Boot modules: the content of a boot bank's files, without its compression and its signature."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from vmvisor_image.archives.archive import Archive, ArchiveHome, find_reader
from vmvisor_image.base.forking import cached_property
from vmvisor_image.boot import microcode
from vmvisor_image.boot.microcode import MicrocodeUpdate, find_vendor, read_updates
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.compressions.peel import peel
from vmvisor_image.compressions.signed import ModuleSignature, find_signature
from vmvisor_image.errors import CorruptImage, NotAnArchive, Problem
from vmvisor_image.record import Record
from vmvisor_image.schemas.module import (
    ELF_MAGIC,
    ENVELOPE_MAGIC,
    ESX_BOOT_INFO_MAGIC,
    HEADER_SEARCH,
    MULTIBOOT_MAGIC,
    Elf32ProgramHeader,
    Elf32Rest,
    Elf64ProgramHeader,
    Elf64Rest,
    ElfIdentification,
    MultibootHeader,
)
from vmvisor_image.streams.opening import SourceLike, open_source
from vmvisor_image.streams.reading import meter_of, read_up_to
from vmvisor_image.streams.source import Closing, ReadAt
from vmvisor_image.streams.views import Slice

ModuleKind = Literal["elf", "tar", "vmtar", "zip", "ar", "iso9660", "envelope", "microcode", "empty", "unknown"]
WITHOUT_FILES: Final = {
    "elf": "a program (ELF), not an archive",
    "microcode": "microcode for processors, not an archive",
    "empty": "empty, as some modules of ESXi 5 and later are",
}
"""Description of each kind of module that has no files and is not damaged."""

_MACHINES: Final = {3: "x86", 62: "x86-64", 183: "AArch64"}
_LOADED: Final = 1
_CHUNK: Final = 1 << 20
_OVERLAP: Final = 1024
_NEAR: Final = 256
"""Bytes before a kernel's build number that contain its version and product."""
_NAME: Final = rb"VMware ESX(?:i| Server 3i)?"
_NUMBERS: Final = rb"[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}"
_RELEASE: Final = re.compile(rb"Releasebuild-([0-9]{3,12})(?=[^0-9])")
_VERSION_ALONE: Final = re.compile(rb"(?<![ -~])" + _NUMBERS + rb"(?=\0)")
_PRODUCT_ALONE: Final = re.compile(rb"(?<![ -~])" + _NAME + rb"(?=\0)")
_TOGETHER: Final = re.compile(rb"(" + _NAME + rb") (" + _NUMBERS + rb") build-([0-9]{3,12})(?=[^0-9])")
_BUILD: Final = re.compile(rb"build-([0-9]{3,12})(?=[^0-9])")
_VERSION: Final = re.compile(rb"(" + _NAME + rb") (" + _NUMBERS + rb")(?=[^0-9])")


@dataclass(frozen=True, slots=True)
class Kernel:
    """An ELF program, the kind of file that the boot loader starts."""

    bits: int
    """Width of its addresses in bits: 32 or 64."""
    architecture: str
    """Architecture: "x86", "x86-64", "AArch64", or the machine's number in ELF."""
    entry: int
    """Address at which it starts."""
    multiboot: int | None
    """Bytes from the program's start to its Multiboot header; None where it has none."""
    esx_boot_info: int | None
    """Bytes from the program's start to its ESXBootInfo header, which ESXi 6.5 and later have instead, or None."""
    records: tuple[Record, ...]
    """Headers as they are in the file."""


class Module(Closing):
    """One module, read lazily. One made from a path or URL is used as a context manager, or has to be closed."""

    def __init__(self, file: SourceLike, *, storage_options: Mapping[str, Any] | None = None) -> None:
        """A module by its file: a `File` of an image, or anything else that `Image.open` takes, with its options.

        Raises:
            SourceError: The file can't be opened.
            CorruptImage: Its compression can't be opened.
            InvalidArgument: `file` is not a source.
        """
        self._opened = open_source(file, storage_options)
        self.file = file = self._opened.source
        """Opened file of the module, with its compression."""
        try:
            found = peel(file, None, LayerOptions(meter=meter_of(file)))
        except BaseException:
            self.close()
            raise
        self.layers = tuple(layer.kind for layer in found)
        """Kinds of its compressions, outermost first."""
        self._decoded = tuple(layer.source for layer in found)
        self._outer = found[0].source if found else file
        self._inner = found[-1].source if found else file

    @cached_property
    def kind(self) -> ModuleKind:
        """Kind of its content, without the compression."""
        head = read_up_to(self._inner, 0, max(len(ENVELOPE_MAGIC), microcode.HEAD))
        if not head:
            return "empty"
        if head.startswith(ELF_MAGIC):
            return "elf"
        if head.startswith(ENVELOPE_MAGIC):
            return "envelope"
        if find_vendor(head) is not None:
            return "microcode"
        try:
            return find_reader(self._inner, looks_at_end=False)[0]  # type: ignore[return-value]  # every one of them is in ModuleKind
        except NotAnArchive:
            return "unknown"

    @cached_property
    def signature(self) -> ModuleSignature | None:
        """Signature, which is inside the outermost compression; decodes that to the end.

        Raises:
            CorruptImage: The module is damaged.
        """
        return find_signature(self._outer)

    @property
    def signed_content(self) -> ReadAt:
        """Content without the outermost compression, with the trailer: what `signature` was found in."""
        return self._outer

    @property
    def layer_problems(self) -> tuple[Problem, ...]:
        """Faults of its compressions, such as bytes behind their end, which are in no content and so not signed.

        Decodes all of it, as the end of a compression is known only then.

        Raises:
            CorruptImage: The module is damaged.
        """
        for source in self._decoded:
            source.read_at(source.size, 0)  # asking for the size decodes to the end
        return tuple(problem for source in self._decoded for problem in source.problems)

    @property
    def content(self) -> ReadAt:
        """Content without the compression and the signature.

        Raises:
            CorruptImage: The module is damaged.
        """
        if len(self.layers) > 1 or self.signature is None:
            return self._inner
        return Slice(self._inner, 0, self.signature.offset, "module")

    @cached_property
    def kernel(self) -> Kernel | None:
        """Headers of the program; None where it is not one.

        Raises:
            CorruptImage: The headers are damaged.
        """
        return _read_kernel(self._inner) if self.kind == "elf" else None

    @cached_property
    def version(self) -> tuple[str | None, str | None, str | None]:
        """Product, version and build in a program's text, each None where the text does not have it; reads it whole.

        Raises:
            CorruptImage: The module is damaged.
        """
        return _find_version(self._inner)

    @cached_property
    def microcode(self) -> tuple[MicrocodeUpdate, ...]:
        """Microcode updates for processors in it; empty for other kinds.

        Raises:
            CorruptImage: The updates are damaged.
        """
        return read_updates(self._inner) if self.kind == "microcode" else ()

    def open_archive(self) -> Archive:
        """Archive of the files in it.

        Raises:
            NotAnArchive: It holds no files; the error says what it is.
        """
        if self.kind in WITHOUT_FILES:
            raise NotAnArchive(f"it is {WITHOUT_FILES[self.kind]}", structure="boot module", offset=0)
        if self.kind == "envelope":
            raise NotAnArchive(
                "it is encrypted: see vmvisor_image.boot.envelope", structure="configuration envelope", offset=0
            )
        home = ArchiveHome(self.file)
        return Archive(home.kind, home)

    def close(self) -> None:
        """Close the files opened for it; those that the caller opened stay open."""
        self._opened.close()

    def __repr__(self) -> str:
        return f"<Module {'+'.join((*self.layers, self.kind))}>"


def _pieces(source: ReadAt) -> Iterator[bytes]:
    """Pieces of the data that overlap, so that no short text is cut."""
    at, kept = 0, b""
    while data := read_up_to(source, at, _CHUNK):
        at += len(data)
        whole = kept + data
        kept = whole[-_OVERLAP:]
        yield whole
    yield kept + b"\0"  # so that text at the very end matches


def _find_version(source: ReadAt) -> tuple[str | None, str | None, str | None]:
    """Product, version and build by a kernel's text.

    The kernel of ESXi 6.7 has them as separate strings, with build, product and version next to each other in one
    place; up to 4.1 they are one string.
    """
    name = product = version = build = None
    alone: tuple[str, str] | None = None
    """Version and build found next to each other, while the product is not yet known."""
    for data in _pieces(source):
        if name is None and (match := _PRODUCT_ALONE.search(data)):
            name = match[0].decode()
        for match in _RELEASE.finditer(data) if alone is None else ():
            near = data[max(0, match.start() - _NEAR) : match.start()]
            if versions := _VERSION_ALONE.findall(near):
                alone = versions[-1].decode(), match[1].decode()
                name = products[-1].decode() if (products := _PRODUCT_ALONE.findall(near)) else name
                break
        if alone is not None and name is not None:
            return name, *alone
        if alone is None and (match := _TOGETHER.search(data)):
            return match[1].decode(), match[2].decode(), match[3].decode()
        if version is None and (match := _VERSION.search(data)):
            product, version = match[1].decode(), match[2].decode()
        if build is None and (match := _BUILD.search(data)):
            build = match[1].decode()
    return (product or name, version, build) if alone is None else (product, *alone)


def _read_kernel(source: ReadAt) -> Kernel:
    head = read_up_to(source, 0, HEADER_SEARCH)
    identification = ElfIdentification.parse(head)
    if identification.data_encoding != 1 or identification.bits not in (1, 2):
        raise CorruptImage(
            "neither 32 nor 64 bits, or not little-endian",
            structure="ELF header",
            offset=4,
            found=f"{identification.bits}, {identification.data_encoding}",
        )
    is_64 = identification.bits == 2
    rest: Elf32Rest | Elf64Rest
    rest = (Elf64Rest if is_64 else Elf32Rest).parse(head, ElfIdentification.length())
    multiboot = _find_multiboot(head)
    records: list[Record] = [identification, rest]
    if multiboot is not None:
        records.append(MultibootHeader.parse(head, multiboot))
    return Kernel(
        64 if is_64 else 32,
        _MACHINES.get(identification.machine, str(identification.machine)),
        rest.entry,
        multiboot,
        _find_esx_boot_info(source, rest),
        tuple(records),
    )


def _find_multiboot(head: bytes) -> int | None:
    """Bytes from the start of a program to its Multiboot header, within `head`; None where there is none."""
    magic = MULTIBOOT_MAGIC.to_bytes(4, "little")
    at = head.find(magic)
    while 0 <= at <= len(head) - MultibootHeader.length():
        header = MultibootHeader.parse(head, at)
        if at % 4 == 0 and (header.magic + header.flags + header.checksum) % (1 << 32) == 0:
            return at
        at = head.find(magic, at + 1)
    return None


def _find_esx_boot_info(source: ReadAt, rest: Elf32Rest | Elf64Rest) -> int | None:
    """Bytes from the start of a program to its ESXBootInfo header, in the segment that is loaded lowest, or None."""
    kind: type[Elf32ProgramHeader] | type[Elf64ProgramHeader]
    kind = Elf32ProgramHeader if isinstance(rest, Elf32Rest) else Elf64ProgramHeader
    size = rest.program_header_size
    if rest.program_header_count and size < kind.length():
        raise CorruptImage(
            "too small for one",
            structure="ELF header",
            field="program_header_size",
            offset=rest.source_offset,
            expected=f"at least {kind.length()}",
            found=size,
        )
    segments = []
    for number in range(rest.program_header_count):  # at most 65,535
        at = rest.program_headers + number * size
        data = source.read_at(at, kind.length())
        segment = kind.parse(data, base=at)
        if segment.segment_type == _LOADED and segment.file_size:
            segments.append(segment)
    if not segments:
        return None
    lowest = min(segments, key=lambda segment: segment.physical_address)
    data = read_up_to(source, lowest.offset, min(HEADER_SEARCH, lowest.file_size))
    magic = ESX_BOOT_INFO_MAGIC.to_bytes(4, "little")
    places = (at for at in range(0, len(data) - 3, 8) if data[at : at + 4] == magic)
    found = next(places, None)
    return None if found is None else lowest.offset + found
