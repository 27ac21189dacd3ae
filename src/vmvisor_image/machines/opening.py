"""`open_machine`, and the search for machines in a folder, a datastore or an archive."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Unpack, overload
from urllib.parse import unquote

from vmvisor_image.archives import tar
from vmvisor_image.archives.archive import HEAD, Archive, ArchiveHome
from vmvisor_image.base.limits import DEFAULT_LIMITS, check_entries
from vmvisor_image.base.names import fold_name
from vmvisor_image.base.open_options import MachineOptions, OpenOptions, check_options
from vmvisor_image.disk.datastore import open_datastore
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.paths import path_name
from vmvisor_image.errors import (
    CorruptImage,
    MemberNotFound,
    NotAFileSystem,
    NotAMachine,
    Problem,
    ProblemList,
    SeveralImages,
    UnsafeName,
)
from vmvisor_image.files.checksums import Checksum
from vmvisor_image.files.file import File
from vmvisor_image.files.tree import FileTree
from vmvisor_image.machines import ovf, ovf_signature, vmsd, vmx
from vmvisor_image.machines.formats import MACHINES
from vmvisor_image.machines.machine import Description
from vmvisor_image.machines.ovf import Digest
from vmvisor_image.machines.place import InArchive, Place, file_name_of, is_elsewhere, place_of
from vmvisor_image.machines.virtual_machine import Checks, Machine, SignatureOf
from vmvisor_image.packages.certificates import Certificate
from vmvisor_image.packages.signatures import SignatureCheck, SignatureState
from vmvisor_image.streams.opening import SourceLike, open_source, path_of
from vmvisor_image.streams.reading import chunks, read_up_to
from vmvisor_image.streams.source import Closing, Source
from vmvisor_image.streams.urls import is_url

__all__ = ("FoundMachines", "Machine", "find_machines", "machines_of", "open_machine")

_HEAD = 4096
"""Bytes at the start of a file by which it may be a description."""
_LARGEST = max(each.LARGEST for each in MACHINES)
_SUFFIXES = (*(suffix for each in MACHINES for suffix in each.SUFFIXES), ovf.ARCHIVE_SUFFIX)
_MOST_PROBLEMS = 1000


def open_machine(source: SourceLike, *, member: str | None = None, **options: Unpack[MachineOptions]) -> Machine:
    """The virtual machine that a file describes: a VMX, an OVF, an OVA (a tar with an OVF), or libvirt's domain XML.

    Its disks are looked for in the directory of the file, whatever directory their paths name; a path into the
    datastore that the file lies in is followed there. They are opened when they are used.

    Args:
        source: The file: a path, a URL, a `File` of a datastore or archive, or anything else that `Image.open` takes.
        member: Name or identifier of the machine, where the file describes several.
        **options: Options of its disks, see `Image.open`: `threads`, `limits`, `storage_options` (also for the file)
            and `allow_cid_mismatch`.

    Raises:
        OSError: The file can't be opened.
        NotAMachine: The file describes no virtual machine.
        CorruptImage: The file is damaged.
        SeveralImages: It describes several machines, and `member` names none.
        MemberNotFound: It describes no machine `member`.
    """
    check_options("open_machine", options, MachineOptions.__optional_keys__)
    found = machines_of(source, options)
    try:
        return _chosen(found, member)
    except BaseException:
        for each in found:
            each.close()
        raise


def _chosen(found: tuple[Machine, ...], member: str | None) -> Machine:
    """The machine `member` of those in a file, or the only one."""
    names = tuple(each.name or "" for each in found)
    listed = ", ".join(map(repr, names))
    if member is not None:
        wanted = [each for each in found if member in (each.name, each.description.identifier)]
        if not wanted:
            raise MemberNotFound(f"no machine {member!r} in it; there are {listed}", wanted=member, names=names)
        return wanted[0]
    if len(found) > 1:
        several = SeveralImages(f"it describes several machines, name one as member: {listed}", structure="machine")
        several.members = names
        raise several
    return found[0]


def machines_of(source: SourceLike, options: MachineOptions, path: str | None = None) -> tuple[Machine, ...]:
    """All machines that a file describes; see `open_machine` for the errors.

    Args:
        source: The file.
        options: Options of the disks.
        path: Path to show for it; None for its own.
    """
    storage_options = options.get("storage_options")
    if path is None:
        path = source.path if isinstance(source, File) else path_of(source)
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(open_source(source, storage_options))
        archive = _package(opened.source)
        if archive is None:
            place, name, inner = place_of(source, storage_options), name_of(path), opened.source
        else:
            description = next(iter(archive.values()))
            place, name, inner = InArchive(archive), description.name, description
        head = read_up_to(inner, 0, _HEAD)
        likely = [each for each in MACHINES if each.probe(head)]
        data = read_up_to(inner, 0, _LARGEST + 1) if likely else b""
        for each in likely:
            described = each.parse(data[: each.LARGEST + 1])
            if described is None:
                continue
            beside = _Beside(place, name, storage_options)
            problems: tuple[Problem, ...] = ()
            checks: Checks | None = None
            signature: SignatureOf | None = None
            if each is vmx:
                described = (beside.with_snapshots(described[0]),)
            elif each is ovf:
                problems, checks = beside.manifest()
                signature = beside.check_signature
            if archive is not None:  # its disks are read from there
                stack.pop_all()
            return tuple(
                Machine(
                    replace(one, problems=(*one.problems, *problems)),
                    place,
                    options,
                    path=path,
                    checks=checks,
                    signature=signature,
                    closes=() if archive is None else (opened,),
                )
                for one in described
            )
    names = ", ".join(["OVA", *(each.NAME for each in MACHINES[:-1])])
    message = f"it is not the description of a virtual machine ({names} or {MACHINES[-1].NAME})"
    raise NotAMachine(message, structure="machine", offset=0)


def _package(source: Source) -> Archive | None:
    """The archive in a source that is an OVA: a tar whose first file is a description; None for anything else."""
    if tar.kind_of(source, read_up_to(source, 0, HEAD)) is None:
        return None
    archive = ArchiveHome(source, looks_at_end=False).files
    first = next(iter(archive), "")
    return archive if fold_name(first).endswith(ovf.SUFFIXES) and "/" not in first else None


def name_of(path: str | None) -> str | None:
    """Name of the file at a path or URL; None without a path."""
    if path is None:
        return None
    last = path.replace("\\", "/").rpartition("/")[2]
    return unquote(last.partition("?")[0].partition("#")[0]) if is_url(path) else last


@dataclass(frozen=True, slots=True)
class _Beside:
    """Files beside a description that have its name and another suffix."""

    place: Place | None
    name: str | None
    """Name of the description."""
    storage_options: Mapping[str, Any] | None

    def read(self, suffix: str, most: int) -> bytes | None:
        """At most one byte more than `most` of such a file; None where there is none.

        Raises:
            CorruptImage: It can't be read.
            OSError: It can't be read.
        """
        if self.place is None or self.name is None:
            return None
        try:
            source = self.place.find(f"{self.name.rpartition('.')[0] or self.name}{suffix}")
        except (OSError, KeyError):  # none of them has to be there
            return None
        with open_source(source, self.storage_options) as opened:
            return read_up_to(opened.source, 0, most + 1)

    def with_snapshots(self, machine: Description) -> Description:
        """The machine of a VMX with the snapshots that a VMSD has."""
        try:
            data = self.read(vmsd.SUFFIX, vmx.LARGEST)
        except (CorruptImage, OSError) as error:
            return replace(machine, problems=(*machine.problems, Problem(vmsd.NAME, f"it can't be read: {error}")))
        if data is None:
            return machine
        snapshots, current, problems = vmsd.parse_vmsd(data)
        return replace(machine, snapshots=snapshots, current=current, problems=(*machine.problems, *problems.found))

    def manifest(self) -> tuple[tuple[Problem, ...], Checks | None]:
        """Problems of the manifest, and the function that compares the files with it; nothing where there is none."""
        try:
            data = self.read(ovf.MANIFEST_SUFFIX, ovf.LARGEST_MANIFEST)
        except (CorruptImage, OSError) as error:
            return (Problem("manifest", f"it can't be read: {error}"),), None
        if data is None:
            return (), None
        digests, problems = ovf.parse_manifest(data)
        return problems, partial(self.compare, digests)

    def check_signature(self, certificates: tuple[Certificate, ...]) -> SignatureCheck:
        """Check of the signature of the manifest; see `Machine.check_signature`."""
        try:
            signature = self.read(ovf_signature.SUFFIX, ovf_signature.LARGEST)
            if signature is None:
                return SignatureCheck(SignatureState.UNSIGNED, "it has no signature")
            manifest = self.read(ovf.MANIFEST_SUFFIX, ovf.LARGEST_MANIFEST)
        except (CorruptImage, OSError) as error:
            return SignatureCheck(SignatureState.NOT_CHECKED, f"it can't be read: {error}")
        if manifest is None or len(manifest) > ovf.LARGEST_MANIFEST:
            message = "there is no manifest that it would be of" if manifest is None else "the manifest is too large"
            return SignatureCheck(SignatureState.NOT_CHECKED, message)
        return ovf_signature.check_manifest(manifest, signature, certificates)

    def compare(self, digests: Sequence[Digest]) -> tuple[tuple[Checksum, ...], tuple[Problem, ...]]:
        """Comparisons of the files that are there with their checksums, and a problem for each other one."""
        found: list[Checksum] = []
        problems: list[Problem] = []
        listed_in = f"{(self.name or '').rpartition('.')[0]}{ovf.MANIFEST_SUFFIX}"
        for each in digests:
            digest = hashlib.new(each.algorithm, usedforsecurity=False)
            try:
                if is_elsewhere(each.name):
                    raise UnsafeName("it would lie in another directory", structure="manifest")
                assert self.place is not None, "it was found there"
                with open_source(self.place.find(file_name_of(each.name, "manifest")), self.storage_options) as opened:
                    for chunk in chunks(opened.source):
                        digest.update(chunk)
            except (CorruptImage, OSError, KeyError) as error:
                reason = str(error) if isinstance(error, CorruptImage) else "it is not there, or can't be read"
                problems.append(Problem("manifest", f"{each.name!r} can't be checked: {reason}"))
                continue
            found.append(Checksum(each.name, listed_in, each.algorithm, each.expected, digest.hexdigest()))
        return tuple(found), tuple(problems)


class FoundMachines(Sequence[Machine], Closing):
    """Machines that a search found, in the order of the files; made by `find_machines`. Close it after use."""

    def __init__(self) -> None:
        """Empty."""
        self._machines: list[Machine] = []
        self._closes: list[Closing | Image] = []
        self._problems = ProblemList("machines", _MOST_PROBLEMS)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Files with the name of a machine that can't be read as one, and damage of where they were looked for.

        Those of each machine are in its own `problems`.
        """
        return self._problems.found

    @overload
    def __getitem__(self, index: int) -> Machine: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Machine, ...]: ...
    def __getitem__(self, index: int | slice) -> Machine | tuple[Machine, ...]:
        """Machine by its number, from 0; or several."""
        return tuple(self._machines)[index]

    def __len__(self) -> int:
        return len(self._machines)

    def close(self) -> None:
        """Close the machines, and what was opened to find them."""
        for each in (*self._machines, *reversed(self._closes)):
            each.close()

    def __repr__(self) -> str:
        return f"<FoundMachines, {len(self)}>"

    def _add(self, open_all: Callable[[], tuple[Machine, ...]], path: str, *, is_sure: bool) -> None:
        """Add the machines of a file; one that can't be read is a problem where `is_sure`."""
        try:
            self._machines += open_all()
        except NotAMachine as error:
            if is_sure:
                self._problems.note(path, error.message)
        except (CorruptImage, OSError) as error:
            self._problems.note(path, str(error))

    def _add_files(self, files: FileTree, above: str | None, options: MachineOptions) -> None:
        """Add the machines of a volume or archive, whose files have `above` and a slash before their paths."""
        for file in files.values():
            if is_machine_name(file.name):
                path = f"{above}/{file.path}" if above else file.path
                self._add(partial(machines_of, file, options, path), path, is_sure=_is_sure(path))
        for problem in files.problems:
            self._problems.add(problem)


def is_machine_name(name: str) -> bool:
    """Whether a file may describe a machine, by its suffix."""
    return fold_name(name).endswith(_SUFFIXES)


def _is_sure(name: str) -> bool:
    """Whether a file of this name has to be the description of a machine."""
    return not fold_name(name).endswith(".xml")


def find_machines(source: SourceLike | Image, *devices: SourceLike, **options: Unpack[OpenOptions]) -> FoundMachines:
    """Every virtual machine of a folder, of the volumes of a disk image, of an archive, or of one file.

    Args:
        source: Path of a folder, in which and below which files are looked for; or a source as `Image.open` takes it,
            or an image, which stays open.
        devices: Further devices of a datastore that spans several.
        **options: See `Image.open`; of these, the disks of the machines have those of `open_machine`.

    Raises:
        OSError: The source can't be opened.
        CorruptImage: The source is neither of these, or damaged.
        LimitExceeded: There are too many files.
    """
    check_options("find_machines", options, OpenOptions.__optional_keys__)
    found = FoundMachines()
    try:
        _search(found, source, devices, options)
    except BaseException:
        found.close()
        raise
    return found


def _search(
    found: FoundMachines, source: SourceLike | Image, devices: tuple[SourceLike, ...], options: OpenOptions
) -> None:
    path, storage_options = path_of(source), options.get("storage_options")
    of_disks: MachineOptions = {}
    for key in MachineOptions.__optional_keys__ & options.keys():
        of_disks[key] = options[key]  # type: ignore[literal-required]
    if devices:
        datastore = open_datastore(source, *devices, storage_options=storage_options)
        found._closes.append(datastore)
        found._add_files(datastore.files, datastore.label, of_disks)
        for problem in datastore.problems:
            found._problems.add(problem)
        return
    if path is not None and storage_options is None and not is_url(path) and os.path.isdir(path):  # noqa: PTH112
        for name in _files_below(path, of_disks):
            found._add(partial(machines_of, name, of_disks), name, is_sure=_is_sure(name))
        return
    if isinstance(source, Image):
        _search_image(found, source, of_disks)
        return
    if options.get("member") is None:
        try:
            found._machines += machines_of(source, of_disks)
            return
        except NotAMachine:
            pass
        if _search_archive(found, source, of_disks):
            return
    image = Image.open(source, **options)
    found._closes.append(image)
    _search_image(found, image, of_disks)


def _search_image(found: FoundMachines, image: Image, options: MachineOptions) -> None:
    """Add the machines of every volume of an image, also of those that only a search finds where it has no table."""
    table = image.partitions.or_found()
    for partition in table:
        if partition.is_container:
            continue
        try:
            files = partition.files
        except NotAFileSystem:
            continue
        found._add_files(files, path_name(table, partition), options)
    for problem in image.known_problems:
        found._problems.add(problem)


def _search_archive(found: FoundMachines, source: SourceLike, options: MachineOptions) -> bool:
    """Whether the source is an archive with machines, which are added; a zip has to begin as one."""
    opened = open_source(source, options.get("storage_options"))
    inside = FoundMachines()
    try:
        archive = ArchiveHome(opened.source, opened, looks_at_end=False).files
        archive.limits = options.get("limits") or archive.limits
        inside._add_files(archive, None, options)
    except CorruptImage:  # not an archive, or a compression that is damaged: then it is opened as a disk
        opened.close()
        return False
    except BaseException:
        opened.close()
        raise
    if not inside:
        opened.close()
        return False
    found._machines += inside
    found._closes.append(opened)
    for problem in inside.problems:
        found._problems.add(problem)
    return True


def _files_below(path: str, options: MachineOptions) -> Iterator[str]:
    """Paths of the files in a folder and below it that may describe machines; links to folders are not followed."""
    limits = options.get("limits") or DEFAULT_LIMITS
    count = 0
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            count += 1
            check_entries(count, limits)
            whole = os.path.join(folder, name)  # noqa: PTH118  # as it was given
            if is_machine_name(name) and os.path.isfile(whole):  # noqa: PTH113
                yield whole
