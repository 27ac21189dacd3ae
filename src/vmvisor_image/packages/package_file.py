"""A package that is read forward, once: its description and signature first, then each payload, checked as it goes.

`Vib` lists all members of its archive first, for which all of a compressed package has to be decoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final

from vmvisor_image.archives import ar
from vmvisor_image.archives.member import ArchiveMember
from vmvisor_image.base.forking import ForkSafeLock
from vmvisor_image.base.xml_tree import LARGEST
from vmvisor_image.errors import CorruptImage, NotAnArchive
from vmvisor_image.files.file import Extent, File
from vmvisor_image.packages.descriptor import DESCRIPTOR, PayloadDescription, VibDescriptor, parse_descriptor
from vmvisor_image.packages.vib import SIGNATURE
from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import COPY_CHUNK, ReadAt, Source

_STRUCTURE: Final = "VIB"
_PAYLOAD: Final = "VIB payload"
_MOST_MEMBERS: Final = 10_000
_STRONG: Final = ("sha256", "sha384", "sha512")


class PackageFile:
    """A package, of which no more is read than was asked for."""

    def __init__(self, source: ReadAt, name: str | None = None) -> None:
        """Read the description and the signature.

        Args:
            source: Bytes of the package.
            name: Name for messages; None for the package's id.

        Raises:
            NotAnArchive: It is no VIB.
            CorruptImage: Its description can't be read.
        """
        self.source: Source = as_source(source)
        """Bytes of the package."""
        self._lock = ForkSafeLock()
        self._found: dict[str, ArchiveMember] = {}
        self._members: Iterator[ArchiveMember] = iter(())
        if not ar.probe(read_up_to(self.source, 0, 8)):
            raise NotAnArchive(f"{name or 'it'} is no VIB: an ar archive", structure=_STRUCTURE, offset=0)
        self._members = iter(ar.read_members(self.source, lambda _: None))
        self.described = self._text(DESCRIPTOR)
        """Content of ``descriptor.xml``."""
        self.descriptor: VibDescriptor = parse_descriptor(self.described)
        """Description of the package."""
        self.signature = self._text(SIGNATURE)
        """Content of ``sig.pkcs7``; empty in a package without a signature."""

    @property
    def id(self) -> str:
        """See `VibDescriptor.id`."""
        return self.descriptor.id

    def find(self, name: str) -> ArchiveMember:
        """Member with a name; those before it are passed over.

        Raises:
            CorruptImage: The package has no such member, or can't be read so far.
        """
        with self._lock:
            while name not in self._found:
                member = next(self._members, None)
                if member is None or len(self._found) == _MOST_MEMBERS:
                    raise CorruptImage(f"{name!r} is not in it", structure=_STRUCTURE)
                self._found.setdefault(member.path, member)
            return self._found[name]

    def payload(self, description: PayloadDescription, path: str, place: int) -> PayloadFile:
        """File of a payload.

        Args:
            description: The payload, as `descriptor` has it.
            path: Path of the file.
            place: See `PayloadFile.extents`.
        """
        return PayloadFile(self, description, path, place)

    def _text(self, name: str) -> bytes:
        member = self.find(name)
        if member.size > LARGEST:
            raise CorruptImage(f"{name!r} has {member.size} bytes, more than any that is read", structure=_STRUCTURE)
        return self.source.read_at(member.extents[0].offset, member.size) if member.size else b""

    def __repr__(self) -> str:
        return f"<PackageFile {self.id}>"


class _Home:
    """Home of the payloads of a package."""

    def __init__(self, package: PackageFile) -> None:
        self._package = package
        self.meter = package.source.meter

    @property
    def disk(self) -> ReadAt:
        return self._package.source

    @property
    def local_paths(self) -> tuple[str, ...]:
        return self._package.source.local_paths

    def locate(self, token: Any) -> tuple[Extent, ...]:
        found: tuple[Extent, ...] = token
        return found


class PayloadFile(File):
    """A payload of a package; `chunks` compares its SHA-256 with the description's, and ends in an error otherwise."""

    def __init__(self, package: PackageFile, description: PayloadDescription, path: str, place: int) -> None:
        """Made by `PackageFile.payload`."""
        size = description.size
        super().__init__(_Home(package), path, size, None, (Extent(place, size),) if size else ())
        self._package = package
        self.description = description
        """The payload, as the package describes it."""

    def pieces(self, offset: int, length: int) -> Iterator[tuple[Source | None, int, int]]:
        """See `Pieced.pieces`.

        Raises:
            CorruptImage: The package lacks the payload, or has it with another size than it says.
        """
        if length > 0:
            yield self._package.source, self._start() + offset, length

    def chunks(self, size: int = COPY_CHUNK) -> Iterator[bytes]:
        """The content in pieces; see `File.chunks`.

        Raises:
            CorruptImage: The next piece begins with damage; or, behind the last one, the content has another checksum
                than the package's description has for it, or none that could be compared.
        """
        self._start()
        wanted = [each for each in self.description.checksums if each.process is None and each.algorithm in _STRONG]
        if not wanted:
            raise self._error("has no SHA-256 as it is stored in the description, so that it can't be checked")
        digests = [hashlib.new(each.algorithm) for each in wanted]
        for piece in super().chunks(size):
            for digest in digests:
                digest.update(piece)
            yield piece
        for each, digest in zip(wanted, digests, strict=True):
            if digest.hexdigest() != each.value:
                raise self._error(
                    f"has another checksum than by the description: {digest.hexdigest()}, not {each.value}"
                )

    def _start(self) -> int:
        member = self._package.find(self.description.name)
        if member.size != self.size:
            raise self._error(f"has {member.size} bytes, and {self.size} by the description")
        return member.extents[0].offset if member.extents else 0

    def _error(self, message: str) -> CorruptImage:
        return CorruptImage(f"{self.description.name!r} of {self._package.id} {message}", structure=_PAYLOAD)
