"""The disk that a virtual disk rests on: found beside it by its name, given by the caller, or left out on purpose."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from vmvisor_image.base.names import last_part
from vmvisor_image.base.open_options import ParentChoice
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.errors import CorruptImage, MemberNotFound, ProblemList, UnsafeName
from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.linked import Linked, Parent, refuse_loop
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import Source

RAW: Final = "raw"
_HEAD: Final = 4096
_PROTOCOL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:", re.ASCII)
"""Start of a name of QEMU's for something else than a file; one letter is a drive of Windows."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The statement of a disk about its parent, or about another file that it needs."""

    name: str
    """Path of the file, as the disk has it."""
    structure: str
    """Structure with that path, for messages."""
    offset: int | None = None
    """Bytes from the start of the disk's file to that structure; None where that is of no use."""
    kind: str | None = None
    """Format of the parent; "raw" for bytes as they are, None where the disk does not say it."""
    identity: str | None = None
    """Identifier of the parent's content, as `Linked.identity`; None where the disk does not say it."""
    other_identity: str | None = None
    """Another identifier that is as good, as while the parent is being merged; None for no other one."""

    @property
    def file_name(self) -> str:
        """Last part of the path, which is looked for in the directory of the disk.

        Raises:
            UnsafeName: The path has no such part, or does not name a file.
        """
        path = self.name.removeprefix("file:")
        name = last_part(path)
        if name is None or _PROTOCOL.match(path):
            raise UnsafeName(f"it does not name a file, {self.name!r}", structure=self.structure, offset=self.offset)
        return name


def first_there(references: Sequence[Reference], options: LayerOptions) -> Reference:
    """The first of several references to one parent whose file is beside the disk; the first where none has to be.

    Raises:
        CorruptImage: Their last parts differ, and none of these files can be opened.
        UnsafeName: None of them names a file.
    """
    named: dict[str, Reference] = {}
    for each in references:
        with contextlib.suppress(UnsafeName):
            named.setdefault(each.file_name, each)
    if len(named) < 2 or options.neighbour is None or not isinstance(options.parent, ParentChoice):
        return next(iter(named.values()), references[0])
    for name, each in named.items():
        with contextlib.suppress(OSError, KeyError):
            options.neighbour(name)
            return each
    first = references[0]
    names = ", ".join(map(repr, named))
    raise CorruptImage(
        f"the disk rests on another file, which was looked for beside it as {names}: none of them can be opened",
        structure=first.structure,
        offset=first.offset,
    )


def find_parent(reference: Reference, options: LayerOptions, problems: ProblemList) -> Parent | None:
    """The disk that another one rests on; None where it is left out on purpose, which is a problem.

    Only the directory of the disk is looked in, whatever directory its path names: an image must not choose which
    files of the machine are read.

    Raises:
        CorruptImage: The parent is not there, is not of the format that the disk says, can't be opened, or its content
            is not the one that the disk was made for.
        UnsafeName: The path does not name a file.
    """
    if options.parent is None:
        message = f"it is read without its parent, {reference.name!r}: what it does not hold is read as zeros"
        problems.note(reference.structure, message, reference.offset)
        return None
    found = _beside(reference, options) if isinstance(options.parent, ParentChoice) else options.parent
    _check_identity(reference, found, options, problems)
    return found


def _beside(reference: Reference, options: LayerOptions) -> Parent:
    name = reference.file_name
    refuse_loop(options.above, name, reference.structure)
    source = open_beside(reference, "the disk rests on", options)
    inner = replace(options, snapshot=None, member=None, progress=None, index=None, cache=None)
    if reference.kind == RAW or options.open_disk is None:
        return Parent(RAW, name, source)
    try:
        head = read_up_to(source, 0, _HEAD)
        layers = options.open_disk(source, name, inner, head)
    except CorruptImage as error:
        raise CorruptImage(
            f"its parent {name!r} can't be opened: {error}", structure=reference.structure, offset=reference.offset
        ) from error
    if reference.kind is None and layers:  # a guest could have written such a header into its disk
        raise CorruptImage(
            f"its parent {name!r} begins as {layers[0].kind}, and the disk does not say which format it has: "
            "if it is to be read as that, give it as parent",
            structure=reference.structure,
            offset=reference.offset,
        )
    kind = layers[-1].kind if layers else RAW
    if reference.kind is not None and kind != reference.kind:
        raise CorruptImage(
            f"its parent {name!r} is of another format",
            structure=reference.structure,
            offset=reference.offset,
            expected=reference.kind,
            found=kind,
        )
    return Parent(kind, name, layers[-1].source if layers else source)


def open_beside(reference: Reference, use: str, options: LayerOptions) -> Source:
    """The file of a reference, in the directory of the disk.

    Args:
        reference: The reference.
        use: Words for the message that come before the name, such as "the disk rests on".
        options: Options of the disk.

    Raises:
        CorruptImage: There is no such file, or the directory is not known.
        UnsafeName: The path does not name a file.
    """
    name = reference.file_name
    where = "" if name == reference.name else f" (its path is {reference.name!r}, of which only the name is used)"
    if options.neighbour is None:
        raise CorruptImage(
            f"{use} another file, {reference.name!r}, and its own directory is not known: "
            "open it by its path, or give the other one as parent",
            structure=reference.structure,
            offset=reference.offset,
        )
    try:
        return as_source(options.neighbour(name))
    except (OSError, KeyError) as error:
        raise CorruptImage(
            f"{use} another file, {name!r}, which was looked for beside it{where} and can't be opened: {error}",
            structure=reference.structure,
            offset=reference.offset,
        ) from error


def _check_identity(reference: Reference, parent: Parent, options: LayerOptions, problems: ProblemList) -> None:
    """Compare the identifier of the parent with the one that the disk was made for."""
    there = parent.source.identity if isinstance(parent.source, Linked) else None
    if reference.identity is None or there is None or there in (reference.identity, reference.other_identity):
        return
    wanted = reference.identity
    if reference.other_identity is not None:
        wanted += f" or {reference.other_identity}"
    message = (
        f"the parent {parent.name!r} is another disk or has changed since: its identifier is {there}, "
        f"and the disk was made for {wanted}"
    )
    if not options.allow_cid_mismatch:
        raise CorruptImage(
            f"{message}; allow_cid_mismatch reads it nevertheless",
            structure=reference.structure,
            offset=reference.offset,
        )
    problems.note(reference.structure, message, reference.offset)


def refuse_snapshot(kind: str, options: LayerOptions) -> None:
    """Refuse the name of a snapshot for a format whose files hold none.

    Raises:
        MemberNotFound: A snapshot is asked for.
    """
    if options.snapshot is not None:
        raise MemberNotFound(f"there is no snapshot {options.snapshot!r}: {kind} has none inside a file")


def parent_without_descriptor(structure: str, options: LayerOptions, problems: ProblemList) -> Parent | None:
    """The given parent of an extent whose descriptor, which would name it, is another file; None where none is given.

    That its holes are zeros then is a problem.
    """
    if isinstance(options.parent, Parent):
        return options.parent
    message = "it is read without its descriptor, which says what it rests on: what it does not hold is read as zeros"
    problems.note(structure, message)
    return None
