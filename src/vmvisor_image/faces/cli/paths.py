"""Commands that take ``PARTITION/PATH`` and give content: ``cat``, ``extract``, ``sha256``, ``hexdump``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Final

from vmvisor_image.base.names import printable
from vmvisor_image.disk.explanation import counted
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.paths import split_path
from vmvisor_image.errors import (
    CorruptImage,
    InvalidArgument,
    NotAFile,
    PartialExtraction,
    PartitionNotFound,
    TruncatedImage,
)
from vmvisor_image.examine.hexdump import Hexdump
from vmvisor_image.faces.cli.advice import AGAIN, command, way_of, with_step
from vmvisor_image.faces.cli.listing import entry_of, print_json
from vmvisor_image.faces.cli.opening import opened_image
from vmvisor_image.faces.cli.status import BAD_INPUT, DONE
from vmvisor_image.faces.cli.targets import Selected, Target, opened_selection, opened_target
from vmvisor_image.files.file import Directory, File, extract_all
from vmvisor_image.reports.verification_report import manifest_line
from vmvisor_image.streams.reading import read_healthy, read_up_to
from vmvisor_image.streams.source import ReadAt, Source

_CHUNK: Final = 1 << 20
_MOST_SHOWN: Final = 5
"""Most directories that a message names."""


def write_out(source: Source) -> int:
    """Write a file or partition to standard output; everything before damage is written first."""
    source.prefetch(0, source.size)
    offset = 0
    while offset < source.size:
        chunk = read_healthy(source, offset, min(_CHUNK, source.size - offset))
        sys.stdout.buffer.write(chunk)
        offset += len(chunk)
    return DONE


def run_cat(options: argparse.Namespace) -> int:
    """Write a file of a partition, or a partition, to standard output."""
    with opened_target(options, is_whole=options.path is not None) as target:
        if options.path is None:
            return write_out(_content(target, options))
        given = f"{options.target.rstrip('/')}/{options.path.lstrip('/')}"
        return write_out(_content(dataclasses.replace(target, rest=options.path, given=given), options))


def _content(target: Target, options: argparse.Namespace) -> Source:
    """Bytes that a target has."""
    if target.rest is None:
        if target.number is None:
            path = f"{target.given or target.name}/PATH"
            raise NotAFile(f"{target.name!r} is a datastore: give the path of a file in it, {path}")
        if sys.stdout.isatty():
            listing = command("ls", options.source, target.given or target.name, *way_of(options))
            raise InvalidArgument(
                f"these are the bytes of a whole partition, which a terminal can't show: send them to a file or a pipe"
                f" ({listing} lists its files)"
            )
        return _partition(target)
    found = target.entry()
    if isinstance(found, Directory):
        raise directory_given(target.given, options)
    return found


def directory_given(path: str, options: argparse.Namespace) -> NotAFile:
    """Error for the path of a directory where a file is wanted."""
    listing = command("ls", options.source, f"{path.rstrip('/')}/", *way_of(options))
    return NotAFile(f"{path!r} is a directory, not a file: {listing} lists it")


def _partition(target: Target) -> Source:
    """Partition of a target."""
    holder = target.holder
    assert isinstance(holder, Source), "a datastore has no number"
    return holder


def run_extract(options: argparse.Namespace) -> int:
    """Write files to a directory; those that can't be written are named on standard error."""
    with opened_selection(options, options.targets) as (image, selected):
        if not options.targets and not options.device:
            _refuse_partition_as_destination(image, options.dest)
        parts = [(part.files.root, part.above, part.patterns) for part in selected.parts]
        progress = None if options.progress is None else options.progress.phase("extracting", for_good=True)
        try:
            written = extract_all(
                parts, options.dest, overwrite=options.force, resume=options.resume, progress=progress
            )
        except PartialExtraction as error:
            if len(error.failed) > 1:  # otherwise, the error itself names it
                for path, reason in error.failed:
                    said = f"{printable(path)} was not written: {printable(str(reason))}"
                    print(f"vmvisor-image: {said}", file=sys.stderr)
            _count_unlisted(selected)
            raise
        _print_written(selected, written, options.dest)
        _count_unlisted(selected)
    return DONE


def _count_unlisted(selected: Selected) -> None:
    """Say on standard error how many directories could not be listed, or not whole: their files were not written."""
    paths = [
        f"{part.target.name}/{directory.path}" for part in selected.parts for directory in part.files.root.partial()
    ]
    if paths:
        shown = ", ".join(map(printable, paths[:_MOST_SHOWN]))
        more = f" and {len(paths) - _MOST_SHOWN} more" if len(paths) > _MOST_SHOWN else ""
        number = "1 directory" if len(paths) == 1 else f"{len(paths)} directories"
        said = f"{number} could not be listed whole, and what damage hides there was not written: {shown}{more}"
        print(f"vmvisor-image: {said}", file=sys.stderr)


def _print_written(selected: Selected, written: tuple[Path, ...], dest: str) -> None:
    if not any(part.above for part in selected.parts):
        print(f"{counted(len(written), 'file')} written to {printable(dest)}")
        return
    numbers = Counter(path.relative_to(dest).parts[0] for path in written)
    print(f"{counted(len(written), 'file')} of {counted(len(numbers), 'partition')} written to {printable(dest)}:")
    for part in selected.parts:
        folder = part.above.rstrip("/")
        label = part.target.holder.label
        name = f", {printable(label)}" if label else ""
        if folder not in numbers:
            print(f"  partition {folder}{name}: no files, so no folder")
            continue
        print(f"  {printable(str(Path(dest, folder)))}: {counted(numbers[folder], 'file')} of partition {folder}{name}")
    for partition in selected.unread:
        print(f"  partition {partition.key} ({partition.kind}) has no files that can be read")


def _refuse_partition_as_destination(image: Image, dest: str) -> None:
    """Refuse a partition where a folder belongs: the destination was forgotten."""
    if dest.startswith((".", os.sep)) or os.path.lexists(dest):
        return
    try:
        split_path(image, dest)
    except PartitionNotFound:
        return
    raise InvalidArgument(
        f"{dest!r} is in the image, and no folder to write to follows it; for a folder of that name write ./{dest}"
    )


def run_sha256(options: argparse.Namespace) -> int:
    """Print the hash of each file, as ``sha256sum`` in the folder that the same arguments of ``extract`` write."""
    status, entries = DONE, []
    with opened_selection(options, options.targets) as (image, selected):
        for part in selected.parts:
            for file in sorted(part.matching(), key=_place):
                try:
                    value: str | None = file.sha256()
                except CorruptImage as error:
                    status, value = BAD_INPUT, None
                    name = f"{part.target.name}/{file.path}"
                    print(f"vmvisor-image: {printable(name)} has no hash: {printable(str(error))}", file=sys.stderr)
                if options.json:
                    entries.append({**entry_of(part.target, file), "sha256": value})
                elif value is not None:
                    sys.stdout.buffer.write(manifest_line(value, f"{part.above}{file.path}"))
        if options.json:
            print_json(image, entries, [part.target for part in selected.parts], selected.unread)
    return status


def _place(file: File) -> int:
    """First byte on the disk: a compressed image is decoded front to back."""
    try:
        extents = file.extents
    except CorruptImage:
        return 0
    return extents[0].offset if extents else 0


def run_hexdump(options: argparse.Namespace) -> int:
    """Print bytes of the disk, of a partition or of a file; equal lines once, then a star."""
    if options.target is None and not options.device:
        with opened_image(options) as image:
            return _dump(image, options)
    with opened_target(options) as target:
        return _dump(_content(target, options), options)


def _dump(target: ReadAt, options: argparse.Namespace) -> int:
    if options.json:
        return _dump_as_json(target, options)
    end = options.offset + options.length
    repeated, starred = b"", False
    for offset in range(options.offset, end, _CHUNK):
        data = read_up_to(target, offset, min(_CHUNK, end - offset))
        if not data:
            _refuse_offset(target, offset)
        for line in Hexdump(data, offset).lines():
            if line.data != repeated:
                print(line)
            elif not starred:
                print("*")
            starred = line.data == repeated
            repeated = line.data
        if offset + len(data) < min(offset + _CHUNK, end):
            end = offset + len(data)
            break
    print(f"{end:08x}")
    return DONE


def _dump_as_json(target: ReadAt, options: argparse.Namespace) -> int:
    """Print the bytes as JSON, with equal lines, too."""
    data = read_up_to(target, options.offset, options.length)
    if options.length and not data:
        _refuse_offset(target, options.offset)
    lines = [
        {"offset": line.offset, "hex": line.data.hex(), "text": line.text}
        for line in Hexdump(data, options.offset).lines()
    ]
    print(json.dumps({"offset": options.offset, "length": len(data), "lines": lines}, indent=2))
    return DONE


def _refuse_offset(target: ReadAt, offset: int) -> None:
    """Raise the error for an offset at or past the end."""
    try:
        target.read_at(offset, 1)
    except TruncatedImage as error:
        raise with_step(error, "give a smaller --offset" if target.size else AGAIN) from error
