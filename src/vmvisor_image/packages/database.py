"""The image database of a boot bank or CD (``imgdb.tgz``): which packages are installed, by the host's own account.

Source: the database of an installer of ESXi 6.7. The signature of a package is over ``.xml.orig``; ``.xml`` was written
anew by the installer, and no signature covers it.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from vmvisor_image.archives.archive import Archive, open_archive
from vmvisor_image.base.forking import cached_property
from vmvisor_image.base.names import fold_name
from vmvisor_image.base.xml_tree import LARGEST
from vmvisor_image.errors import CorruptImage, Problem, ProblemList
from vmvisor_image.packages.certificates import Certificate
from vmvisor_image.packages.descriptor import PayloadDescription, VibDescriptor, parse_descriptor
from vmvisor_image.packages.profile import ImageProfile, format_profile, parse_profile
from vmvisor_image.packages.signatures import SignatureCheck, check_signed_data
from vmvisor_image.streams.opening import SourceLike
from vmvisor_image.streams.source import Closing

DATABASE: Final = "imgdb.tgz"
_STRUCTURE: Final = "image database"
_VIBS: Final = "/vibs/"
_PROFILES: Final = "/profiles/"
_SIGNED, _SIGNATURE = ".orig", ".sig"
_FOLDER: Final = "var/db/esximg"
_PLAIN: Final = re.compile(r"[^A-Za-z0-9._+-]")
_MOST_BYTES: Final = 1 << 27
"""Number of bytes of all documents that are read; the database of an installer of ESXi 6.7 has a few millions."""


@dataclass(frozen=True, slots=True)
class InstalledVib:
    """A package that the database lists."""

    descriptor: VibDescriptor
    """Description: the signed form where the database has it, otherwise the one that the installer wrote."""
    signed: bytes | None
    """The description as it was signed; None where the database does not have it."""
    signature: bytes
    """Signature over `signed`, in PEM or DER; empty where there is none."""
    written: bytes = b""
    """Description as the installer wrote it."""

    @property
    def id(self) -> str:
        """See `VibDescriptor.id`."""
        return self.descriptor.id

    def check_signature(self, certificates: tuple[Certificate, ...] = ()) -> SignatureCheck:
        """Check of the signature over the description; see `check_signed_data`.

        Raises:
            DependencyMissing: The extra ``crypto`` is not installed.
            CorruptImage: The signature can't be parsed.
        """
        return check_signed_data(self.signed or b"", self.signature if self.signed is not None else b"", certificates)


class ImageDatabase(Closing):
    """An image database. One made from a path or URL is used as a context manager, or has to be closed."""

    def __init__(self, archive: Archive) -> None:
        """Made by `open_image_database`."""
        self._archive = archive
        self._problems = ProblemList(_STRUCTURE)

    @cached_property
    def vibs(self) -> Mapping[str, InstalledVib]:
        """Packages by id."""
        found: dict[str, InstalledVib] = {}
        for path in self._paths(_VIBS):
            with self._guarded(path):
                self._add(found, self._vib(path))
        return MappingProxyType(found)

    @cached_property
    def profile(self) -> ImageProfile | None:
        """Image profile of the host; None without one. Of several, the last one by name, which is a problem."""
        found: list[ImageProfile] = []
        for path in self._paths(_PROFILES):
            with self._guarded(path):
                found.append(parse_profile(self._read(path)))
        if len(found) > 1:
            names = ", ".join(repr(each.name) for each in found)
            self._problems.note(_STRUCTURE, f"it has {len(found)} image profiles, {names}: the last one is used")
        return found[-1] if found else None

    @cached_property
    def payloads(self) -> Mapping[str, tuple[InstalledVib, PayloadDescription]]:
        """Package and payload of each file of the boot bank, by the file's name in lower case.

        By the image profile, or else by the name that a payload has in its package (``vfat-name``).
        """
        found: dict[str, tuple[InstalledVib, PayloadDescription]] = {}
        names = {} if self.profile is None else self.profile.payload_files
        for vib in self.vibs.values():
            files = names.get(vib.id, {})
            for payload in vib.descriptor.payloads:
                name = files.get(payload.name) or payload.file_name
                if not name:
                    continue
                key = fold_name(name.lstrip("/"))
                first, _ = found.setdefault(key, (vib, payload))
                if found[key] != (vib, payload):
                    message = f"{key!r} is a payload of {first.id!r} and of {vib.id!r}: the first one counts"
                    self._problems.note(_STRUCTURE, message)
        return MappingProxyType(found)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage to the database, and what readers could differ on; reads all of it."""
        vibs, profile, _ = self.vibs, self.profile, self.payloads
        missing = () if profile is None else [each for each in profile.vib_ids if each not in vibs]
        listed = tuple(
            Problem(_STRUCTURE, f"the image profile names {each!r}, of which there is no description")
            for each in missing
        )
        return (*self._archive.problems, *self._ambiguous(), *self._problems.found, *listed)

    def close(self) -> None:
        """Close the source, where it was opened for the database."""
        self._archive.close()

    def _ambiguous(self) -> Iterator[Problem]:
        """Members that another reader could take for others: links, and names that are there in two cases or twice."""
        found: dict[str, str] = {}
        for member in self._archive.members:
            folded = fold_name(f"/{member.path}")
            if member.kind == "directory" or not any(folder in folded for folder in (_VIBS, _PROFILES)):
                continue
            if member.kind == "symlink":
                yield Problem(_STRUCTURE, f"{member.path!r} is a symbolic link, which is not followed", member.offset)
            elif not any(folder in f"/{member.path}" for folder in (_VIBS, _PROFILES)):
                message = f"{member.path!r} is not read: its folder is in another case"
                yield Problem(_STRUCTURE, message, member.offset)
            if folded in found:
                message = f"{member.path!r} is there more than once, first as {found[folded]!r}"
                yield Problem(_STRUCTURE, message, member.offset)
            found.setdefault(folded, member.path)

    @cached_property
    def _documents(self) -> tuple[str, ...]:
        """Paths of the descriptions and profiles that are read."""
        found, total, left_out = [], 0, 0
        for path in sorted(self._archive):
            if path.endswith((_SIGNED, _SIGNATURE)) or not any(each in f"/{path}" for each in (_VIBS, _PROFILES)):
                continue
            parts = (path, path + _SIGNED, path + _SIGNATURE)
            size = sum(self._archive[each].size for each in parts if each in self._archive)
            if total + size > _MOST_BYTES:
                left_out += 1
                continue
            total += size
            found.append(path)
        if left_out:
            message = f"{left_out} documents are left out: all together have more than {_MOST_BYTES} bytes"
            self._problems.note(_STRUCTURE, message)
        return tuple(found)

    def _paths(self, folder: str) -> list[str]:
        return [path for path in self._documents if folder in f"/{path}"]

    def _vib(self, path: str) -> InstalledVib:
        signed = self._read(path + _SIGNED) if path + _SIGNED in self._archive else None
        signature = self._read(path + _SIGNATURE) if path + _SIGNATURE in self._archive else b""
        content = self._read(path)
        written = parse_descriptor(content)
        descriptor = written if signed is None else parse_descriptor(signed)
        if descriptor.id != written.id:
            message = f"{path!r} describes {written.id!r}, and its signed form {descriptor.id!r}"
            self._problems.note(_STRUCTURE, message)
        return InstalledVib(descriptor, signed, signature, content)

    def _add(self, found: dict[str, InstalledVib], vib: InstalledVib) -> None:
        if vib.id in found:
            self._problems.note(_STRUCTURE, f"it has two descriptions of {vib.id!r}: the first one is used")
        found.setdefault(vib.id, vib)

    def _read(self, path: str) -> bytes:
        file = self._archive[path]
        if file.size > LARGEST:
            raise CorruptImage(f"it has {file.size} bytes, more than any document that is read", structure=_STRUCTURE)
        return file.read_bytes()

    @contextlib.contextmanager
    def _guarded(self, path: str) -> Iterator[None]:
        """Block that reads a document; one that it can't read is a problem, and the others stay readable."""
        try:
            yield
        except CorruptImage as error:
            self._problems.add(Problem(error.structure, f"{path}: {error.message}", error.offset))

    def __repr__(self) -> str:
        return f"<ImageDatabase {self._archive.kind}>"


def open_image_database(source: SourceLike, *, storage_options: Mapping[str, Any] | None = None) -> ImageDatabase:
    """The image database in `source`: the file ``imgdb.tgz`` of a boot bank or CD.

    If opened from a path or URL, use it as a context manager or close it.

    Args:
        source: A `File` of an image, or anything else that `Image.open` takes.
        storage_options: See `Image.open`.

    Raises:
        OSError: The file can't be opened.
        NotAnArchive: It is no archive.
        CorruptImage: Its compression can't be opened.
    """
    return ImageDatabase(open_archive(source, storage_options=storage_options))


def build_image_database(profile: ImageProfile, packages: Iterable[tuple[VibDescriptor, bytes, bytes]]) -> bytes:
    """An image database (``imgdb.tgz``) with an image profile and its packages; the same ones give the same bytes.

    Each package's description is in it twice, as on a CD: as ``.xml``, and as ``.xml.orig``, which its signature is
    over.

    Args:
        profile: The image profile, with the name of each payload's file.
        packages: Description of each package, parsed and as it was signed, and its signature, or empty.
    """
    files = {f"{_FOLDER}{_PROFILES}{_file_name(profile.name, profile.name)}": format_profile(profile)}
    for descriptor, signed, signature in packages:
        path = f"{_FOLDER}{_VIBS}{_file_name(descriptor.name, descriptor.id)}"
        files[path] = files[path + _SIGNED] = signed
        if signature:
            files[path + _SIGNATURE] = signature
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(made.getvalue(), mtime=0)


def _file_name(name: str, unique: str) -> str:
    """Name of a document: a number follows the name, so that versions of one package are told apart."""
    number = int.from_bytes(hashlib.sha256(unique.encode("utf-8", "surrogatepass")).digest()[:8], "big", signed=True)
    return f"{_PLAIN.sub('_', name)}-{number}.xml"
