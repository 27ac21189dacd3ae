"""The command `module`: a boot module, of an image or by itself."""

from __future__ import annotations

import argparse

from vmvisor_image.archives.archive import Metered
from vmvisor_image.base.limits import Meter
from vmvisor_image.base.names import printable
from vmvisor_image.boot.envelope import read_envelope
from vmvisor_image.boot.modules import WITHOUT_FILES, Module
from vmvisor_image.disk.partition import Partition
from vmvisor_image.disk.paths import entry_at
from vmvisor_image.errors import (
    CorruptImage,
    InvalidArgument,
    NotAFile,
    NotAnArchive,
    UsageError,
)
from vmvisor_image.faces.cli.advice import AGAIN, command, listed_by, way_of
from vmvisor_image.faces.cli.opening import image_of, limits_of, named_partition, opened_image
from vmvisor_image.faces.cli.paths import directory_given, write_out
from vmvisor_image.faces.cli.show import list_archive
from vmvisor_image.faces.cli.status import DONE
from vmvisor_image.files.file import Directory, File
from vmvisor_image.streams.opening import open_source

_NO_MODULE = (
    "neither a program (ELF), an archive (tar, vmtar, zip, ar, ISO 9660), an encrypted configuration nor microcode"
)
"""What a file is that is no boot module."""


def run_module(options: argparse.Namespace) -> int:
    """Print the properties of a boot module, or write a file of it to standard output."""
    path, inner = options.partition, options.inner
    if path is not None and "/" in path and inner is None and (options.path is not None or _is_disk(options)):
        with opened_image(options) as image:
            return _show_module_at(options, path, image.resolve(path), options.path)
    if options.path is not None:
        with opened_image(options) as image:
            given = f"{path.rstrip('/')}/{options.path.lstrip('/')}"
            found = entry_at(named_partition(image, path).files, options.path, given)
            return _show_module_at(options, given, found, inner)
    given_options = {"--index": options.index, "--cache": options.cache, "--member": options.member}
    if any(given_options.values()) or options.salvage:
        raise InvalidArgument("a module by itself has no image that could be indexed, kept, salvaged or have members")
    limits = limits_of(options)
    with open_source(options.source) as opened, limits.operation():
        module = Module(Metered(opened.source, Meter(limits)))
        if path is None:
            _refuse_module(module, options.source, path)
            return _show_module(options, module)
        try:
            return _write_inner(options, module, path)
        except NotAnArchive:
            _refuse_module(module, options.source, path)
            raise


def _show_module_at(
    options: argparse.Namespace, path: str, found: Partition | Directory | File, inner: str | None
) -> int:
    """Show a file of an image as a module, or a file in that."""
    if isinstance(found, Directory):
        raise directory_given(path, options)
    if isinstance(found, Partition):
        raise NotAFile(f"{path!r} is a partition: a module is a file in one")
    module = Module(found)
    if module.kind == "unknown" and not module.layers:
        dump = command("hexdump", options.source, path, *way_of(options))
        raise CorruptImage(f"{path!r} is {_NO_MODULE}; {dump} shows its first bytes", structure="boot module")
    return _show_module(options, module) if inner is None else _write_inner(options, module, inner, path)


def _write_inner(options: argparse.Namespace, module: Module, inner: str, *place: str) -> int:
    """Write a file in a module to standard output."""
    with listed_by(command("module", options.source, *place, *way_of(options))):
        file = module.open_archive()[inner]
    return write_out(file)


def _is_disk(options: argparse.Namespace) -> bool:
    """Whether the source is a disk with partitions, and not a module by itself."""
    try:
        with image_of(options, options.source, None) as image:
            return len(image.partitions) > 0
    except (CorruptImage, UsageError):
        return False


def _show_module(options: argparse.Namespace, module: Module) -> int:
    print(" in ".join((module.kind, *reversed(module.layers))))
    if (signature := module.signature) is not None:
        key = "" if signature.key_id is None else f", key {printable(signature.key_id)}"
        print(f"signed: schema {signature.schema}{key}, {signature.length} bytes (not verified)")
    if (kernel := module.kernel) is not None:
        loads = "Multiboot" if kernel.multiboot is not None else "no Multiboot header"
        print(f"{kernel.bits}-bit {kernel.architecture}, {'ESXBootInfo' if kernel.esx_boot_info else loads}")
        print(" ".join(printable(text) for text in module.version if text))
    for update in module.microcode:
        made = "" if update.released is None else f", {update.released}"
        print(
            f"{update.offset:>12}  {update.size:>8} bytes  {update.vendor} {update.processor:#x},"
            f" revision {update.revision:#x}{made}"
        )
    if module.kind == "envelope":
        print(printable(read_envelope(module.content).explain()))
    elif module.kind != "unknown" and module.kind not in WITHOUT_FILES:
        archive = module.open_archive()
        list_archive(archive)
        options.problems += archive.problems
    return DONE


def _refuse_module(module: Module, source: str, partition: str | None) -> None:
    """Raise the error for a file by itself in which no module was found; an empty one may well be compressed."""
    if module.kind == "unknown":
        inside = "PARTITION/PATH" if partition is None else f"{partition.rstrip('/')}/PATH"
        raise CorruptImage(
            f"it is {_NO_MODULE}; {command('info', source)} says what it looks like, and"
            f" {command('module', source, inside)} reads a module of a disk image",
            structure=" in ".join(("boot module", *reversed(module.layers))),
            offset=0,
        )
    if module.kind == "empty" and not module.layers:
        raise CorruptImage(AGAIN, structure="boot module", offset=0)
