"""`Machine`: a virtual machine, with its disks and snapshots."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Unpack
from urllib.parse import unquote

from vmvisor_image.base.forking import ForkSafeLock
from vmvisor_image.base.names import last_part, printable
from vmvisor_image.base.open_options import MachineOptions, OpenOptions, check_options
from vmvisor_image.base.shown import Shown
from vmvisor_image.base.system_errors import in_words
from vmvisor_image.compressions.peel import HEAD
from vmvisor_image.disk.image import Image
from vmvisor_image.errors import (
    CorruptImage,
    DependencyMissing,
    InvalidArgument,
    KeyUnavailable,
    MemberNotFound,
    Problem,
    UnsafeName,
    UsageError,
)
from vmvisor_image.examine.signatures import Match
from vmvisor_image.files.checksums import Checksum
from vmvisor_image.layers.parents import RAW
from vmvisor_image.layers.virtual import VIRTUAL_DISKS
from vmvisor_image.layers.vmdk import JoinedExtents
from vmvisor_image.machines import libvirt, ovf
from vmvisor_image.machines.machine import Backing, DescribedSnapshot, Description, DiskDevice
from vmvisor_image.machines.place import Place, file_name_of, in_same_datastore, is_elsewhere
from vmvisor_image.packages.certificates import Certificate
from vmvisor_image.packages.signatures import SignatureCheck, SignatureState
from vmvisor_image.streams.opening import SourceLike, open_source
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import Closing, ReadAt, Source
from vmvisor_image.volumes.magics import match_signature

_MOST_SHOWN = 4
_LONGEST_SHOWN = 60
"""Most disks, and most characters of a name, that are shown in one line."""
_MOST_PARTS = 500
"""Most parts of a disk's file, each of which stays open while it is read."""
_FORMATS = (RAW, *(each.KIND for each in VIRTUAL_DISKS))
"""Formats of disks that are read; libvirt has names for others, and another one for VHD."""
Checks = Callable[[], tuple[tuple[Checksum, ...], tuple[Problem, ...]]]
"""Function that compares the files of a machine with the checksums that are given for them."""
SignatureOf = Callable[[tuple[Certificate, ...]], SignatureCheck]
"""Function that checks the signature of a machine's manifest against certificates that the user trusts."""
_UNSIGNED = SignatureCheck(SignatureState.UNSIGNED, "it has no signature")
_SIGNATURE = "signature of the manifest"
_RIGHT = (SignatureState.VERIFIED, SignatureState.UNKNOWN_SIGNER, SignatureState.UNSIGNED)


class MachineDisks(Mapping[str, Image]):
    """Disks of a machine by slot, such as "scsi0:0", in the order of their controllers.

    An image is opened when it is used, and closed with the machine.
    """

    def __init__(self, machine: Machine, devices: tuple[DiskDevice, ...], what: str = "the machine") -> None:
        """Made by `Machine` and `Snapshot`."""
        self._machine = machine
        self._devices = {device.slot: device for device in devices}
        self._what = what
        self._images: dict[str, Image] = {}
        self._lock = ForkSafeLock()

    @property
    def devices(self) -> Mapping[str, DiskDevice]:
        """Disks by slot, as the description has them; nothing is opened."""
        return dict(self._devices)

    def __getitem__(self, slot: str) -> Image:
        """The disk at a slot; its file is looked for now, and read when the image is used.

        Raises:
            MemberNotFound: There is no disk at that slot; it is also a KeyError.
            KeyUnavailable: The description is encrypted, so that its disks are not known.
            CorruptImage: The disk's file is missing.
            UnsafeName: The description's path for it names no file.
        """
        device = self._device(slot)
        with self._lock:
            if slot not in self._images:
                self._images[slot] = self._machine._open_disk(device, self._devices.values(), {})
            return self._images[slot]

    def open(self, slot: str, **options: Unpack[OpenOptions]) -> Image:
        """The disk at a slot, opened now, with options of its own; it is yours to close, before the machine.

        Args:
            slot: Key of the disk.
            **options: See `Image.open`; those that are not given are the machine's.

        Raises:
            OSError: Its file can't be opened.
            MemberNotFound: There is no disk at that slot; it is also a KeyError.
            KeyUnavailable: The description is encrypted, so that its disks are not known.
            CorruptImage: The disk's file is missing or damaged.
            UnsafeName: The description's path for it names no file.
        """
        check_options("open", options, OpenOptions.__optional_keys__)
        image = self._machine._open_disk(self._device(slot), self._devices.values(), options)
        with image.limits.operation():
            _ = image.disk
        return image

    def _device(self, slot: str) -> DiskDevice:
        """The disk at a slot, as the description has it; see `__getitem__` for the errors."""
        device = self._devices.get(slot)
        if device is None:
            if self._machine.is_encrypted and not self._devices:
                raise KeyUnavailable(f"no disk {slot!r} is known: the description of the machine is encrypted")
            listed = ", ".join(map(repr, self._devices)) or "none"
            message = f"{self._what} has no disk {slot!r}; there are {listed}"
            raise MemberNotFound(message, wanted=slot, names=self._devices)
        return device

    def __contains__(self, slot: object) -> bool:
        return slot in self._devices

    def __iter__(self) -> Iterator[str]:
        return iter(self._devices)

    def __len__(self) -> int:
        return len(self._devices)

    @property
    def missing(self) -> Mapping[str, CorruptImage]:
        """Error of each disk whose file can't be found, by slot; looks for the files, and opens none."""
        found = {}
        for slot, device in self._devices.items():
            try:
                self._machine._find_disk(device, self._devices.values())
            except CorruptImage as error:
                found[slot] = error
        return found

    def close(self) -> None:
        """Close the images."""
        with self._lock:
            images, self._images = self._images, {}
        with contextlib.ExitStack() as stack:
            for image in images.values():
                stack.callback(image.close)

    def __repr__(self) -> str:
        return f"<MachineDisks {', '.join(self._devices) or 'none'}>"


class Snapshot:
    """A snapshot of a machine."""

    __slots__ = ("_described", "_parent", "disks", "is_current", "key")

    def __init__(
        self, described: DescribedSnapshot, key: str, parent: str | None, disks: MachineDisks, *, is_current: bool
    ) -> None:
        """Made by `Machine`."""
        self._described = described
        self._parent = parent
        self.key = key
        """Key of the snapshot in `Machine.snapshots`: its name, with its number where others have the same name."""
        self.disks = disks
        """Disks as they stood when the snapshot was taken, by slot; without those that are independent."""
        self.is_current = is_current
        """Whether the machine's present state goes on from it."""

    @property
    def name(self) -> str:
        """Name that its maker gave it."""
        return self._described.name

    @property
    def uid(self) -> int:
        """Number of the snapshot, which no other one of the machine has."""
        return self._described.uid

    @property
    def description(self) -> str:
        """Text that its maker wrote about it; may be empty."""
        return self._described.description

    @property
    def created(self) -> datetime | None:
        """Time at which it was taken, in UTC and aware of it; None where that is not recorded."""
        return self._described.created

    @property
    def parent(self) -> str | None:
        """Key of the snapshot that it was taken after; None for a first one."""
        return self._parent

    @property
    def state(self) -> str | None:
        """Path of the file with the machine's state when it was taken, a .vmsn; None where none is named."""
        return self._described.state

    def recognise_state(self) -> Match | None:
        """Format of the file `state` by its magic, "vmss" where it is what it should be; None for any other content.

        Raises:
            CorruptImage: It is missing, or can't be read; or none is named.
            UnsafeName: Its path names no file.
        """
        machine, structure = self.disks._machine, f"state of snapshot {self.key!r}"
        if self.state is None:
            raise CorruptImage("no file is named for it", structure=structure)
        source = machine._find_file(self.state, structure)
        with open_source(source, machine._options.get("storage_options")) as opened:
            return match_signature(opened.source)

    def __repr__(self) -> str:
        return f"<Snapshot {printable(self.key)!r}>"


class Machine(Shown, Closing):
    """A virtual machine; made by `open_machine`. Use it as a context manager, or close it."""

    def __init__(
        self,
        description: Description,
        place: Place | None,
        options: MachineOptions,
        *,
        path: str | None = None,
        checks: Checks | None = None,
        signature: SignatureOf | None = None,
        closes: tuple[Closing | Image, ...] = (),
    ) -> None:
        """Constructor for `open_machine`.

        Args:
            description: What its files say.
            place: Place of its files; None where that is not known.
            options: Options of its disks.
            path: Path of its description.
            checks: Function that compares its files with the checksums that are given for them.
            signature: Function that checks the signature of these checksums.
            closes: Objects that are closed with it.
        """
        self.description = description
        """All that its files say of it."""
        self.path = path
        """Path or URL of its description; None for one without a path."""
        self._place = place
        self._options = options
        self._checks = checks
        self._signature = signature
        self._closes = closes
        self._wrong: tuple[Problem, ...] = ()
        self._noted: dict[Problem, None] = {}
        self.disks = MachineDisks(self, description.devices)
        """Disks as the machine would see them now, by slot."""
        self._snapshots = self._make_snapshots()

    @property
    def name(self) -> str | None:
        """Name of the machine; where its description gives none, the name of its file without the suffix."""
        if self.description.name is not None or self.path is None:
            return self.description.name
        return self.path.replace("\\", "/").rpartition("/")[2].rpartition(".")[0] or None

    @property
    def kind(self) -> str:
        """Format of the description: "vmx", "ovf" or "libvirt"."""
        return self.description.kind

    @property
    def guest(self) -> str | None:
        """Operating system of the guest, in the format's own words, such as "windows9-64"; None where none is named."""
        return self.description.guest

    @property
    def firmware(self) -> str | None:
        """Firmware: "bios" or "efi"; None where it is not known."""
        return self.description.firmware

    @property
    def is_encrypted(self) -> bool:
        """Whether the description, or a part of it, is encrypted; disks that only that part names are not known."""
        return self.description.is_encrypted

    @property
    def settings(self) -> Mapping[str, str]:
        """Every setting of a VMX by its key in lower case; empty for other formats."""
        return self.description.settings

    @property
    def snapshots(self) -> Mapping[str, Snapshot]:
        """Snapshots by name, oldest first; where several have the same name, " (number N)" is added to it."""
        return dict(self._snapshots)

    def snapshot(self, name: str | int) -> Snapshot:
        """The snapshot of a name, of a key of `snapshots`, or of a number.

        Raises:
            MemberNotFound: There is none.
            InvalidArgument: Several have that name.
        """
        found = self._snapshots.get(name) if isinstance(name, str) else None
        named = [each for each in self._snapshots.values() if each.name == name]
        numbered = [each for each in self._snapshots.values() if str(each.uid) == str(name)]
        if found is None and len(named) > 1:
            listed = ", ".join(repr(each.key) for each in named)
            raise InvalidArgument(f"several snapshots are named {name!r}, say which one is meant: {listed}")
        for each in (found, *named, *numbered):
            if each is not None:
                return each
        listed = ", ".join(map(repr, self._snapshots)) or "none"
        raise MemberNotFound(f"no snapshot {name!r}; there are {listed}", wanted=str(name), names=self._snapshots)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage of the description, and disks whose files are missing, also those of snapshots; opens no disk.

        Files with another checksum than the one that is given for them are among these once `checksums` was called.
        """
        missing = [Problem.of(error) for error in self.disks.missing.values()]
        devices = self.disks.devices.values()
        for device in devices:
            if device.redo is not None:
                try:
                    self._find_redo(device, devices)
                except CorruptImage as reason:
                    missing.append(_without_redo(device, reason.message))
        for snapshot in self._snapshots.values():
            for error in snapshot.disks.missing.values():
                found = Problem.of(error)
                missing.append(Problem(found.structure, f"in snapshot {snapshot.key!r}: {found.message}"))
        return tuple(dict.fromkeys([*self.description.problems, *self._noted, *missing, *self._wrong]))

    def problems_of(self, slot: str) -> tuple[Problem, ...]:
        """Those of the `problems` that are about what is read of one disk of the machine, or of a snapshot.

        Where its own file and its description disagree, that is known once the disk was opened.
        """
        found = (*self.description.problems, *self._noted)
        return tuple(problem for problem in found if problem.structure == f"disk {slot}")

    def checksums(self) -> tuple[Checksum, ...]:
        """Comparisons of the machine's files with the manifest of an OVF; empty without one.

        Reads all of the files. Those that differ, and those that can't be read, are then among the `problems`, and so
        is a signature of the manifest that is wrong, or that can't be checked: see `check_signature`.
        """
        found, problems = ((), ()) if self._checks is None else self._checks()
        wrong = tuple(
            Problem("manifest", f"{each.path!r} has the {each.algorithm} {each.found}, not {each.expected}")
            for each in found
            if not each.is_right
        )
        self._wrong = (*wrong, *problems, *self._signature_problems())
        return found

    def check_signature(self, certificates: tuple[Certificate, ...] = ()) -> SignatureCheck:
        """Check of the signature of an OVF's manifest, a ``.cert``; of no other format's machine is anything signed.

        It is over the manifest alone: that the files are those of the manifest is what `checksums` finds. The
        certificate beside it says who signed, and anyone can make one.

        Args:
            certificates: Certificates that the user trusts, from `open_certificates`.

        Raises:
            DependencyMissing: The extra ``crypto`` is not installed.
        """
        return _UNSIGNED if self._signature is None else self._signature(certificates)

    def _signature_problems(self) -> tuple[Problem, ...]:
        try:
            check = self.check_signature()
        except DependencyMissing as error:
            return (Problem(_SIGNATURE, f"it was not checked: {error}"),)
        if check.state in _RIGHT:
            return ()
        return (Problem(_SIGNATURE, f"{check.state.value}: {check.message}"),)

    def close(self) -> None:
        """Close the images of its disks."""
        with contextlib.ExitStack() as stack:
            for each in self._closes:
                stack.callback(each.close)
            for disks in (self.disks, *(snapshot.disks for snapshot in self._snapshots.values())):
                stack.callback(disks.close)

    def _make_snapshots(self) -> dict[str, Snapshot]:
        described = self.description.snapshots
        names = [each.name for each in described]
        keys: dict[int, str] = {}
        for each in described:
            key = each.name
            while names.count(key) > 1 or key in keys.values():  # which the name of another one may be
                key += f" (number {each.uid})"
            keys[each.uid] = key
        made = {}
        for each in described:
            key = keys[each.uid]
            disks = MachineDisks(self, each.devices, f"snapshot {key!r}")
            parent = each.parent_name if each.parent is None else keys.get(each.parent)
            made[key] = Snapshot(each, key, parent, disks, is_current=each.uid == self.description.current)
        return made

    def _open_disk(self, device: DiskDevice, others: Iterable[DiskDevice], options: OpenOptions) -> Image:
        if device.redo is not None and (image := self._open_redo(device, others, options)) is not None:
            return image
        source = self._find_disk(device, others) if device.part_size is None else self._join(device)
        if self.kind == libvirt.KIND:
            _check_format(device, source, self._options.get("storage_options"))
        given: OpenOptions = {**self._options, **options}
        if given.get("snapshot") is None and device.snapshot is not None:
            given["snapshot"] = device.snapshot
        if device.parent is None or "parent" in given:
            image = Image(source, **given)
            if device.backing is not None and "parent" not in given:
                self._compare_chain(device, device.backing, image)
            return image
        parent = self._open_disk(device.parent, others, {})
        self._closes = (*self._closes, parent)
        given["parent"] = parent
        image = Image(source, **given)
        try:
            _ = image.disk
        except InvalidArgument as error:  # its holes would be zeros
            raise CorruptImage(
                f"it is described as the difference to {device.parent.file_name!r}, and its file "
                f"{device.file_name!r} does not rest on another disk",
                structure=f"disk {device.slot}",
            ) from error
        return image

    def _open_redo(self, device: DiskDevice, others: Iterable[DiskDevice], options: OpenOptions) -> Image | None:
        """A disk with the changes in its redo log; None, and a problem, where that is missing or is not one.

        Source: "What is the difference between a Redo log and a Snapshot?" (virtuallyhyper.com), with a listing of
        ESXi: a redo log is a VMDK like that of a snapshot.
        """
        try:
            source = self._find_redo(device, others)
        except CorruptImage as error:
            self._noted[_without_redo(device, error.message)] = None
            return None
        given: OpenOptions = {**self._options, **options}
        with contextlib.ExitStack() as stack:
            is_ours = "parent" not in given
            if is_ours:
                given["parent"] = below = self._open_disk(replace(device, redo=None), others, {})
                stack.callback(below.close)
            image = Image(source, **given)
            stack.callback(image.close)
            try:
                is_disk = image.chain[0].kind != RAW
            except InvalidArgument:
                if not is_ours:  # the parent was given by the caller
                    raise
                is_disk = False
            if not is_disk:
                reason = f"{device.redo!r} is not a disk that rests on another one"
                self._noted[_without_redo(device, reason)] = None
                return None
            stack.pop_all()
            if is_ours:
                self._closes = (*self._closes, below)
            return image

    def _find_redo(self, device: DiskDevice, others: Iterable[DiskDevice]) -> SourceLike:
        """The file of a disk's redo log; see `_find_disk` for the errors."""
        return self._find_disk(replace(device, file_name=device.redo, redo=None), others)

    def _compare_chain(self, device: DiskDevice, described: Backing, image: Image) -> None:
        """Note a problem where a disk rests on others than its description says; what the disk says is read."""
        with contextlib.suppress(CorruptImage, OSError, UsageError):  # using the image says why it can't be opened
            found = [(link.name, link.kind) for link in image.chain[1:]]
            wanted = [
                (None if path is None else last_part(path), kind if kind in _FORMATS else None)
                for path, kind in described.links
            ]
            agrees = (len(found) == len(wanted)) if described.is_whole else (len(found) >= len(wanted))
            for (name, kind), (said_name, said_kind) in zip(found, wanted, strict=False):
                agrees = agrees and said_name in (None, name) and said_kind in (None, kind)
            if not agrees:
                message = f"it rests on {_chain(found)}, and its description says {_chain(wanted)}: the former is read"
                self._noted[Problem(f"disk {device.slot}", message)] = None

    def _find_disk(self, device: DiskDevice, others: Iterable[DiskDevice]) -> SourceLike:
        """The file of a disk.

        Raises:
            CorruptImage: It is missing, or the disk is not in a file.
            UnsafeName: Its path names no file.
        """
        structure = f"disk {device.slot}"
        if device.note is None and device.file_name is None and device.capacity is not None:  # an empty disk
            return JoinedExtents(((device.capacity, None, 0),))
        if device.note is not None or device.file_name is None:
            raise CorruptImage(device.note or "it is not in a file", structure=structure)
        if device.parent is not None:
            self._find_disk(device.parent, others)
        if device.part_size is not None:
            return self._parts(device)[0]
        return self._find_file(device.file_name, structure, [each for each in others if each is not device])

    def _find_file(self, path: str, structure: str, others: Iterable[DiskDevice] = ()) -> SourceLike:
        """The file at a path that a description has.

        Raises:
            CorruptImage: It is missing, or may be that of one of the `others`.
            UnsafeName: The path names no file.
        """
        name = file_name_of(path, structure)
        if self._place is None:
            raise CorruptImage(
                f"its file {name!r} is beside the description, whose directory is not known: open that by its path",
                structure=structure,
            )
        try:
            found = in_same_datastore(path, self._place)
        except KeyError as error:
            raise CorruptImage(f"its file {path!r} is not in this datastore", structure=structure) from error
        if found is not None:
            return found
        is_other = is_elsewhere(path)
        # Disks of one machine in several datastores often have the same name, in folders of the same name.
        if is_other and any(_has_name(each, name) for each in others):
            raise CorruptImage(
                f"its file {path!r} is in another directory; a {name!r} beside the description may be another disk's",
                structure=structure,
            )
        try:
            return self._find(name)
        except (OSError, KeyError) as error:
            of_path = f" (its path is {path!r}, of which only the name is used)" if is_other else ""
            is_missing = isinstance(error, FileNotFoundError)
            raise CorruptImage(
                f"its file {name!r} is not there; it was looked for beside the description{of_path}"
                if is_missing
                else f"its file {name!r} can't be reached: {in_words(error)}",
                structure=structure,
            ) from error

    def _parts(self, device: DiskDevice) -> list[SourceLike]:
        """The parts of a disk's file; where its size is not known, up to the first one that is not there.

        Raises:
            CorruptImage: One is missing, or there are too many.
            UnsafeName: The path names no file.
        """
        structure = f"disk {device.slot}"
        assert device.file_name is not None, "it is in a file"
        assert device.part_size is not None, "it was asked for"
        count = None if device.file_size is None else max(1, -(-device.file_size // device.part_size))
        if count is not None and count > _MOST_PARTS:
            raise CorruptImage(f"its file is in {count} parts; at most {_MOST_PARTS} are read", structure=structure)
        found: list[SourceLike] = []
        for number in range(_MOST_PARTS):
            if number == count:
                break
            part = replace(device, file_name=f"{device.file_name}.{number:09}", part_size=None)
            try:
                found.append(self._find_disk(part, ()))
            except CorruptImage:
                if count is None and found:
                    break
                raise
        return found

    def _join(self, device: DiskDevice) -> Source:
        """The file of a disk that is stored in parts.

        Raises:
            CorruptImage: One is missing, or has another size.
        """
        structure = f"disk {device.slot}"
        assert device.part_size is not None, "it was asked for"
        joined: list[tuple[int, ReadAt | None, int]] = []
        with contextlib.ExitStack() as stack:
            parts = self._parts(device)
            for number, part in enumerate(parts):
                source = stack.enter_context(open_source(part, self._options.get("storage_options"))).source
                whole = device.file_size
                is_last = number == len(parts) - 1
                expected: int | None = device.part_size
                if is_last:
                    expected = None if whole is None else whole - sum(size for size, _, _ in joined)
                if expected not in (None, source.size) or source.size > device.part_size:
                    raise CorruptImage(
                        f"part {number} of its file has the wrong size",
                        structure=structure,
                        expected=expected or device.part_size,
                        found=source.size,
                    )
                joined.append((source.size, source, 0))
            self._closes = (*self._closes, _Opened(stack.pop_all()))
        return JoinedExtents(tuple(joined))

    def _find(self, name: str) -> SourceLike:
        """The file of that name; an OVF has URLs, in which some writers leave characters as they are."""
        assert self._place is not None, "it was asked for"
        unquoted = unquote(name)
        if self.kind == ovf.KIND and unquoted != name and file_name_of(unquoted, "disk") == unquoted:
            with contextlib.suppress(OSError, KeyError):
                return self._place.find(unquoted)
        return self._place.find(name)

    def __repr__(self) -> str:
        disks = ", ".join([*self.disks][:_MOST_SHOWN]) + (", …" if len(self.disks) > _MOST_SHOWN else "")
        count = len(self._snapshots)
        snapshots = f", {count} snapshot{'' if count == 1 else 's'}" if count else ""
        return (
            f"<Machine {printable(self.name or '')[:_LONGEST_SHOWN]!r}, {self.kind}: {disks or 'no disks'}{snapshots}>"
        )


class _Opened(Closing):
    """Sources that were opened for a disk."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        """Close what is on a stack."""
        self._stack = stack

    def close(self) -> None:
        """Close them."""
        self._stack.close()


def _without_redo(device: DiskDevice, reason: str) -> Problem:
    return Problem(f"disk {device.slot}", f"it is read without the changes in its redo log: {reason}")


def _chain(links: Iterable[tuple[str | None, str | None]]) -> str:
    """Words for the files that a disk rests on: name and format of each."""
    shown = [f"{'another source' if name is None else repr(name)} ({kind or 'of any format'})" for name, kind in links]
    return " on ".join(shown) or "nothing"


def _has_name(device: DiskDevice, name: str) -> bool:
    """Whether the last part of the path of a disk's file is `name`."""
    with contextlib.suppress(UnsafeName):
        return device.file_name is not None and file_name_of(device.file_name, "disk") == name
    return False


def _check_format(device: DiskDevice, source: SourceLike, storage_options: Mapping[str, Any] | None) -> None:
    """Refuse a disk that begins as another format than its description says.

    A guest can write a header of qcow2 into its raw disk, and so choose what is read for it.

    Raises:
        CorruptImage: It does.
    """
    if device.kind not in _FORMATS:
        return
    with open_source(source, storage_options) as opened:
        head = read_up_to(opened.source, 0, HEAD)
    found = next((each.KIND for each in VIRTUAL_DISKS if each.probe(head)), RAW)
    if found != device.kind:
        raise CorruptImage(
            f"its file {device.file_name!r} is of another format than described; Image.open reads it as that",
            structure=f"disk {device.slot}",
            expected=device.kind,
            found=found,
        )
