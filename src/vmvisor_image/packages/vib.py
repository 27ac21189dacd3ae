"""A VIB, the package of ESXi 5 and later: an ``ar`` archive of a description, a signature and payloads.

Source: 23 public VIBs for ESXi 5.1 to 9.0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

from vmvisor_image.archives.archive import Archive, ArchiveHome, open_archive
from vmvisor_image.archives.overlaid import OverlaidTree
from vmvisor_image.base.forking import cached_property
from vmvisor_image.errors import CorruptImage, NotAnArchive, PathNotFound, Problem
from vmvisor_image.files.file import File
from vmvisor_image.packages.certificates import Certificate
from vmvisor_image.packages.descriptor import (
    DESCRIPTOR,
    STRUCTURE,
    PayloadChecksum,
    PayloadDescription,
    VibDescriptor,
    parse_descriptor,
)
from vmvisor_image.packages.payload_pass import PayloadHashes, hash_payload
from vmvisor_image.packages.signatures import (
    SignatureCheck,
    SignatureState,
    check_module,
    check_signed_data,
    module_hashes,
)
from vmvisor_image.streams.opening import SourceLike
from vmvisor_image.streams.source import Closing

SIGNATURE: Final = "sig.pkcs7"
_LARGEST_TEXT: Final = 16 << 20
_STRONG: Final = ("sha256", "sha384", "sha512")
_ARCHIVES: Final = ("tgz", "vgz", "vzstd")
"""Types of payloads that are archives of files."""


@dataclass(frozen=True, slots=True)
class ChecksumCheck:
    """Result of comparing a payload with one checksum of its description."""

    checksum: PayloadChecksum
    found: str | None
    """The checksum of the payload, in hexadecimal; None for one over a form of the payload that is not known."""

    @property
    def is_right(self) -> bool | None:
        """Whether both are the same; None where that was not checked."""
        return None if self.found is None else self.found == self.checksum.value


class Fit(Enum):
    """Whether a file is the payload that a description has, by all its checksums together."""

    STORED = "as stored"
    """It is the same byte by byte."""
    DECODED = "decoded"
    """It is the same when decoded, and was compressed anew: installers do that with some modules."""
    OTHER = "other"
    """It is another file."""
    UNKNOWN = "unknown"
    """The description has no checksum of SHA-256 or SHA-512 that could be compared."""


def fit_of(checks: Sequence[ChecksumCheck]) -> Fit:
    """Whether a file is the payload of a description, by the checks of its checksums.

    All checksums of one form have to be right, and one of them SHA-256 or SHA-512: SHA-1 and MD5 can be forged.
    """
    for fit, process in ((Fit.STORED, None), (Fit.DECODED, "gunzip")):
        of_form = [each for each in checks if each.checksum.process == process and each.is_right is not None]
        if all(each.is_right for each in of_form) and any(each.checksum.algorithm in _STRONG for each in of_form):
            return fit
    return Fit.OTHER if any(each.is_right is False for each in checks) else Fit.UNKNOWN


class Payload:
    """A payload of a VIB: its description, and its file."""

    def __init__(self, description: PayloadDescription, file: File | None) -> None:
        """Made by `Vib`."""
        self.description = description
        self.name = description.name
        """Name of its member of the VIB."""
        self.kind = description.kind
        """Type, as `PayloadDescription.kind`."""
        self.file = file
        """File of the payload in the VIB; None where it is missing."""

    def check(self) -> tuple[ChecksumCheck, ...]:
        """Each checksum of the description beside that of the payload, which is read and decoded whole.

        Raises:
            PathNotFound: The payload is missing.
            CorruptImage: It can't be decoded.
        """
        return check_payload(self._needed(), self.description)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """A problem for each difference from the description; reads and decodes the payload whole."""
        structure = "VIB payload"
        if self.file is None:
            return (Problem(structure, f"{self.name!r} is not there"),)
        found = []
        if self.file.size != self.description.size:
            message = f"{self.name!r} has {self.file.size} bytes, and {self.description.size} by the description"
            found.append(Problem(structure, message))
        try:
            checks = self.check()
        except CorruptImage as error:
            return (*found, Problem(structure, f"{self.name!r} can't be decoded: {error}"))
        for check in checks:
            if check.is_right is False:
                name = f"{check.checksum.algorithm} {check.checksum.process or 'as stored'}"
                message = f"{self.name!r} has another checksum ({name}) than by the description"
                found.append(Problem(structure, f"{message}: {check.found}, not {check.checksum.value}"))
        if not any(check.is_right is not None for check in checks):
            found.append(Problem(structure, f"{self.name!r} has no checksum that can be checked"))
        return tuple(found)

    def check_signature(self, certificates: tuple[Certificate, ...] = ()) -> SignatureCheck:
        """Check of the trailer of a boot module; see `check_module`.

        Raises:
            PathNotFound: The payload is missing.
            CorruptImage: It can't be decoded.
            DependencyMissing: The extra ``crypto`` is not installed.
        """
        return check_payload_and_signature(self._needed(), None, certificates)[1]

    def open_archive(self) -> Archive:
        """Archive of the files in it.

        Raises:
            PathNotFound: The payload is missing.
            NotAnArchive: It is not an archive.
        """
        home = ArchiveHome(self._needed())
        return Archive(home.kind, home)

    def _needed(self) -> File:
        if self.file is None:
            raise PathNotFound(f"payload {self.name!r} is not in the package")
        return self.file

    def __repr__(self) -> str:
        return f"<Payload {self.name!r} {self.kind}>"


class Vib(Closing):
    """A package. One made from a path or URL is used as a context manager, or has to be closed."""

    def __init__(self, archive: Archive) -> None:
        """Made by `open_vib`; errors as there."""
        if archive.kind != "ar" or DESCRIPTOR not in archive:
            raise NotAnArchive(f"it is no VIB: an ar archive with {DESCRIPTOR!r}", structure="VIB", offset=0)
        self._archive = archive
        self.descriptor: VibDescriptor = parse_descriptor(self._text(DESCRIPTOR))
        """Description of the package."""

    @property
    def id(self) -> str:
        """See `VibDescriptor.id`."""
        return self.descriptor.id

    @property
    def name(self) -> str:
        """Name of the package."""
        return self.descriptor.name

    @property
    def version(self) -> str:
        """Version of the package."""
        return self.descriptor.version

    @cached_property
    def payloads(self) -> Mapping[str, Payload]:
        """Payloads by name, in the order of the description; one that is missing is there without a file."""
        return MappingProxyType(
            {each.name: Payload(each, self._archive.get(each.name)) for each in self.descriptor.payloads}
        )

    @cached_property
    def files(self) -> PayloadTree:
        """Files of all payloads that are archives, by path, as the package installs them."""
        return PayloadTree(tuple(each for each in self.payloads.values() if each.kind in _ARCHIVES))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Differences between the package and its description; reads and decodes all payloads.

        Checked are each payload's size and checksums, that nothing is missing or more than described, and that the
        payloads hold the files that the description lists.
        """
        found = list(self._archive.problems)
        described = {DESCRIPTOR, SIGNATURE, *self.payloads}
        found += [Problem("VIB", f"{path!r} is not described") for path in self._archive if path not in described]
        found += [Problem("VIB", f"it has {path!r} more than once") for path in self._twice]
        described_twice = _twice(each.name for each in self.descriptor.payloads)
        found += [Problem(STRUCTURE, f"it describes the payload {name!r} more than once") for name in described_twice]
        for payload in self.payloads.values():
            found += payload.problems
        there = {member.path for member in self.files.members}
        found += self.files.problems  # those found by listing the members
        if any(each.kind in _ARCHIVES for each in self.payloads.values()):
            listed = set(self.descriptor.files)
            found += [Problem(STRUCTURE, f"it lists {path!r}, which no payload has") for path in sorted(listed - there)]
            found += [
                Problem(STRUCTURE, f"a payload has {path!r}, which it does not list") for path in sorted(there - listed)
            ]
        return tuple(dict.fromkeys(found))

    def check_signature(self, certificates: tuple[Certificate, ...] = ()) -> SignatureCheck:
        """Check of the signature over the description. The payloads are covered only by the description's checksums.

        Args:
            certificates: Certificates that the user trusts, from `open_certificates`.

        Raises:
            DependencyMissing: The extra ``crypto`` is not installed.
            CorruptImage: The signature can't be parsed.
        """
        if doubled := [path for path in self._twice if path in (DESCRIPTOR, SIGNATURE)]:
            message = f"it has {doubled[0]!r} more than once, and readers differ on which counts"
            return SignatureCheck(SignatureState.NOT_CHECKED, message)
        signature = self._text(SIGNATURE) if SIGNATURE in self._archive else b""
        return check_signed_data(self._text(DESCRIPTOR), signature, certificates)

    def close(self) -> None:
        """Close the source, where it was opened for the package."""
        self._archive.close()

    @property
    def _twice(self) -> list[str]:
        return _twice(member.path for member in self._archive.members)

    def _text(self, name: str) -> bytes:
        file = self._archive[name]
        if file.size > _LARGEST_TEXT:
            raise CorruptImage(f"{name!r} has {file.size} bytes, more than any that is read", structure="VIB")
        return file.read_bytes()

    def __repr__(self) -> str:
        return f"<Vib {self.id}>"


def open_vib(source: SourceLike, *, storage_options: Mapping[str, Any] | None = None) -> Vib:
    """The package in `source`.

    If opened from a path or URL, use it as a context manager or close it.

    Args:
        source: A `File` of an image or bundle, or anything else that `Image.open` takes.
        storage_options: See `Image.open`.

    Raises:
        OSError: The file can't be opened.
        NotAnArchive: It is no VIB: not an ``ar`` archive with a ``descriptor.xml``.
        CorruptImage: Its description can't be read.
    """
    archive = open_archive(source, storage_options=storage_options)
    try:
        return Vib(archive)
    except BaseException:
        archive.close()
        raise


def check_payload(file: File, description: PayloadDescription) -> tuple[ChecksumCheck, ...]:
    """Each checksum of a payload's description beside that of `file`, which is read and decoded whole.

    Raises:
        CorruptImage: It can't be decoded.
    """
    return _checks(description, hash_payload(file, _algorithms(description)))


def check_payload_and_signature(
    file: File, description: PayloadDescription | None, certificates: tuple[Certificate, ...] = ()
) -> tuple[tuple[ChecksumCheck, ...], SignatureCheck, tuple[Problem, ...]]:
    """Results of `check_payload` (none without a description) and `check_module`, and faults of compressions; one pass.

    Raises:
        CorruptImage: It can't be decoded.
        DependencyMissing: There are certificates, and the extra ``crypto`` is not installed.
    """
    wanted = {} if description is None else _algorithms(description)
    found = hash_payload(file, wanted, module_hashes(certificates), finds_signature=True)
    checks = () if description is None else _checks(description, found)
    return checks, check_module(found.signed, found.signature, certificates), found.problems


def _algorithms(description: PayloadDescription) -> dict[str | None, set[str]]:
    algorithms: dict[str | None, set[str]] = {}
    for each in description.checksums:
        algorithms.setdefault(each.process, set()).add(each.algorithm)
    return algorithms


def _checks(description: PayloadDescription, found: PayloadHashes) -> tuple[ChecksumCheck, ...]:
    return tuple(
        ChecksumCheck(each, found.checksums.get(each.process, {}).get(each.algorithm)) for each in description.checksums
    )


class PayloadTree(OverlaidTree):
    """The files of a package's payloads by path; of two with the same path, that of the later payload counts."""

    _HOLDER = "package"

    def __init__(self, payloads: tuple[Payload, ...]) -> None:
        """Made by `Vib`."""
        self._payloads = payloads
        super().__init__([payload.name for payload in payloads])

    def __repr__(self) -> str:
        return f"<PayloadTree of {', '.join(self._names)}>"

    def _open(self, number: int) -> Archive | None:
        payload = self._payloads[number]
        try:
            return payload.open_archive()
        except (CorruptImage, NotAnArchive, PathNotFound) as error:
            self._found.setdefault(Problem("VIB payload", f"{payload.name!r} can't be opened: {error}"))
            return None


def _twice(names: Iterable[str]) -> list[str]:
    """Names that are there more than once."""
    return [name for name, count in Counter(names).items() if count > 1]
