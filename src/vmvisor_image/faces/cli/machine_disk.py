"""The disk of a virtual machine, for commands whose SRC describes one."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import Final

from vmvisor_image.archives.archive import open_archive
from vmvisor_image.base.open_options import OpenOptions
from vmvisor_image.disk.image import Image
from vmvisor_image.errors import CorruptImage, InvalidArgument, MemberNotFound, NotAMachine, SeveralImages, UsageError
from vmvisor_image.machines import vmx
from vmvisor_image.machines.opening import Machine, is_machine_name, name_of, open_machine
from vmvisor_image.machines.virtual_machine import MachineDisks
from vmvisor_image.streams.opening import SourceLike, path_of
from vmvisor_image.streams.pipes import PipeSource
from vmvisor_image.streams.urls import is_url

_MOST_LISTED: Final = 20
"""Most disks that a message names."""


def machine_at(
    source: SourceLike, options: argparse.Namespace, given: OpenOptions, member: str | None = None
) -> Machine | None:
    """The machine that a source describes; None for anything else, and for a source that can't be read.

    A URL is only asked for where its name is that of a description, as no server is to be waited for twice; a pipe is
    not, as no disk lies beside it.

    Args:
        source: The source.
        options: Options of the command.
        given: The same for `Image.open`.
        member: Name of the machine, where several are described.

    Raises:
        SeveralImages: Several are described, and `member` names none.
        MemberNotFound: No machine `member` is described.
        CorruptImage: The description is damaged, and ``--disk`` is given.
    """
    path = path_of(source)
    if isinstance(source, PipeSource):
        return None
    if path is not None and is_url(path) and not is_machine_name(name_of(path) or ""):
        return None
    try:
        return open_machine(source, member=member, limits=given.get("limits"))
    except (SeveralImages, MemberNotFound):
        raise
    except (NotAMachine, OSError, UsageError):
        return None
    except CorruptImage:
        if options.disk is not None:
            raise
        return None


def machine_in_archive(
    source: SourceLike, options: argparse.Namespace, given: OpenOptions, stack: contextlib.ExitStack
) -> Machine | None:
    """The machine that ``--member`` describes in an archive, which the stack closes; None for anything else."""
    if options.member is None or not is_machine_name(options.member):
        return None
    with contextlib.suppress(CorruptImage, OSError, UsageError):
        archive = open_archive(source)
        stack.callback(archive.close)
        archive.limits = given.get("limits") or archive.limits
        return machine_at(archive[options.member], options, given)
    return None


@contextlib.contextmanager
def disk_of(machine: Machine, options: argparse.Namespace, given: OpenOptions) -> Iterator[Image]:
    """The disk of a machine that the options choose; the machine's problems become problems of the command.

    The machine is closed with the disk. A snapshot is the machine's, or where the description has none, as libvirt's
    of a domain, one inside the disk.

    Raises:
        InvalidArgument: The machine has several disks, and the options name none.
        MemberNotFound: There is no such disk or snapshot.
        KeyUnavailable: The description is encrypted, so that its disks are not known.
        CorruptImage: The machine has no disk, or the disk's file is missing or damaged.
    """
    with machine:
        options.of_machine = True
        of_disk: OpenOptions = {**given, "member": None}
        disks = machine.disks
        if options.snapshot is not None and (machine.snapshots or machine.kind == vmx.KIND):
            disks = machine.snapshot(options.snapshot).disks
            of_disk["snapshot"] = None
        slot = options.disk if options.disk is not None else _only(machine, disks)
        with disks.open(slot, **of_disk) as image:
            yield image
        problems = machine.problems
        options.problems += problems
        options.apart += [problem for problem in problems if problem not in machine.problems_of(slot)]


def _only(machine: Machine, disks: MachineDisks) -> str:
    """Slot of the only disk."""
    devices = disks.devices
    if len(devices) == 1 or machine.is_encrypted:
        return next(iter(devices), "")
    if not devices:
        names = ", ".join([*map(repr, machine.snapshots)][:_MOST_LISTED])
        step = f" but those of a snapshot, which --snapshot names: {names}" if names else ""
        raise CorruptImage(f"it has no disks{step}", structure=f"machine {machine.name or ''}".strip())
    listed = [f"{slot} ({device.file_name})" if device.file_name else slot for slot, device in devices.items()]
    more = f" and {len(listed) - _MOST_LISTED} more" if len(listed) > _MOST_LISTED else ""
    raise InvalidArgument(
        f"machine {machine.name!r} has {len(listed)} disks, name one with --disk: "
        f"{', '.join(listed[:_MOST_LISTED])}{more}"
    )


def refuse_disk(options: argparse.Namespace) -> None:
    """Refuse ``--disk`` for what does not describe a machine.

    Raises:
        InvalidArgument: It is given, and no machine was opened.
    """
    if options.disk is not None and not options.of_machine:
        raise InvalidArgument(
            f"--disk is for the description of a machine (VMX, OVF, OVA, libvirt's XML), which {options.source} is not"
        )
