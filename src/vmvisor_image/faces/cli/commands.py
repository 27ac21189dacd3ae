"""Implementation of the commands, one function for each, which gives the exit status."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vmvisor_image.archives.archive import Metered, open_archive
from vmvisor_image.base.destination import check_apart, write_whole
from vmvisor_image.base.limits import Limits, Meter
from vmvisor_image.base.names import printable
from vmvisor_image.base.open_options import OpenOptions, Progress
from vmvisor_image.boot.envelope import read_envelope
from vmvisor_image.boot.modules import WITHOUT_FILES, Module
from vmvisor_image.boot.pxe import export_pxe
from vmvisor_image.disk.banks import BootBank
from vmvisor_image.disk.convert import convert
from vmvisor_image.disk.datastore import Datastore, open_datastore
from vmvisor_image.disk.explanation import counted
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import Partition
from vmvisor_image.disk.partition_table import PartitionTable
from vmvisor_image.disk.tables.find import find_table
from vmvisor_image.errors import (
    DestinationExists,
    InvalidArgument,
    NotAFileSystem,
    PartitionNotFound,
    PathNotFound,
    UsageError,
)
from vmvisor_image.examine.hexdump import Hexdump
from vmvisor_image.faces.cli.search import print_search
from vmvisor_image.faces.cli.show import (
    list_archive,
    list_files,
    list_others,
    print_partition,
    print_report,
    print_rows,
    showing_progress,
)
from vmvisor_image.files.file import File
from vmvisor_image.files.tree import FileTree
from vmvisor_image.reports.inspection import inspect
from vmvisor_image.reports.verification import verify
from vmvisor_image.streams.opening import open_source
from vmvisor_image.streams.pipes import taking_pipes
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.streams.urls import is_url
from vmvisor_image.volumes.role import Role

if TYPE_CHECKING:  # what `scan` alone needs is imported by it: the other commands start sooner
    from concurrent.futures import Executor

DONE = 0
"""Exit status of a successful command."""
BAD_INPUT = 1
"""Exit status where the input is damaged or unsuitable."""
MISUSE = 2
"""Exit status of a command that can't be carried out as given."""
_CHUNK = 1 << 20
_OVERLAID = "oem.tgz"
"""Name of the module for additions by others."""


def _limits(options: argparse.Namespace) -> Limits:
    return Limits(seconds=options.max_seconds, decoded_bytes=options.max_decoded)


def _overlays(given: Sequence[str]) -> dict[str, str]:
    """Directories by module."""
    found = {}
    for text in given:
        module, separator, folder = text.partition("=")
        found[module if separator else _OVERLAID] = folder if separator else text
    return found


def _open_options(options: argparse.Namespace, progress: Progress | None) -> OpenOptions:
    return {
        "threads": options.threads,
        "index": options.index,
        "cache": options.cache,
        "progress": progress,
        "member": options.member,
        "limits": _limits(options),
        "salvage": options.salvage,
    }


@contextlib.contextmanager
def _image(options: argparse.Namespace) -> Iterator[Image]:
    with (
        showing_progress() as progress,
        Image.open(options.source, **_open_options(options, progress)) as image,
        image.limits.operation(),
    ):
        try:
            yield image
        except (PartitionNotFound, PathNotFound, NotAFileSystem) as error:  # damage may hide it
            _check_partitions(image, error)
            options.problems += image.known_problems
            raise
        options.problems += image.known_problems


def _check_partitions(image: Image, cause: Exception | None = None) -> None:
    """Raise the first problem of the table where an image has no partitions."""
    if not len(image.partitions):
        for problem in image.partitions.problems:
            raise problem.error() from cause


def _partition(image: Image, text: str) -> Partition:
    """Partition with a number, or else with a label."""
    if text.isdecimal() and int(text) in image.partitions:
        return image.partitions[int(text)]
    return image.partitions[text]


def run_info(options: argparse.Namespace) -> int:
    """Print the report of an image, or the details of one partition, or what a search finds."""
    if options.search:
        if options.partition is not None:
            raise InvalidArgument("--search is for the whole image: leave the partition out")
        with _image(options) as image:
            print_search(image, as_json=options.json)
        return DONE
    if options.partition is not None:
        if options.json:
            raise InvalidArgument("--json is for the whole image: leave the partition out")
        with _image(options) as image:
            print_partition(_partition(image, options.partition))
        return DONE
    with showing_progress() as progress:
        report = inspect(options.source, **_open_options(options, progress))
    if options.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print_report(report, explain=options.explain)
    if report.scheme == "none" and not report.partitions:
        for problem in report.problems:
            raise problem.error()
    options.problems += report.problems
    return _check(options) if options.checksums else DONE


def _check(options: argparse.Namespace) -> int:
    with _image(options) as image:
        found = image.checksums()
    if not found:
        print("\nno checksum file lies beside what was taken out")
    for checksum in found:
        verdict = "right" if checksum.is_right else f"WRONG: {checksum.found}, not {checksum.expected}"
        print(f"\n{printable(checksum.path)}: {checksum.algorithm} of {printable(checksum.listed_in)} is {verdict}")
    return DONE if all(checksum.is_right for checksum in found) else BAD_INPUT


@contextlib.contextmanager
def _holder(options: argparse.Namespace) -> Iterator[Partition | Datastore]:
    """Partition of the command, or the datastore that it is a device of."""
    with _image(options) as image:
        if not options.device:
            yield _partition(image, options.partition)
            return
        with open_datastore(image, *options.device, volume=options.partition) as datastore:
            yield datastore


def run_ls(options: argparse.Namespace) -> int:
    """Print the files of one partition, or of each."""
    if options.partition is not None or options.device:
        with _holder(options) as holder:
            list_files(holder.files)
            list_others(holder)
        return DONE
    with _image(options) as image:
        _check_partitions(image)
        for partition in image.partitions:
            if partition.is_container:
                continue
            heading = f"Partition {partition.number} {printable(partition.label or '')} ({partition.kind}):"
            try:
                files = partition.files
            except NotAFileSystem:
                print(f"{heading} no files that can be read")
                continue
            print(heading)
            list_files(files)
            list_others(partition)
    return DONE


def run_cat(options: argparse.Namespace) -> int:
    """Write a file of a partition to standard output."""
    with _holder(options) as holder:
        return _write_out(_file(holder.files, options.path))


def _file(files: FileTree, path: str) -> File:
    """File at a path; where there is none, the error names files with a similar name."""
    try:
        return files[path]
    except PathNotFound as error:
        from difflib import get_close_matches

        close = get_close_matches(path, files, 3)
        hint = f"; there is {', '.join(map(repr, close))}" if close else ""
        raise PathNotFound(f"{error}{hint}") from error


def run_extract(options: argparse.Namespace) -> int:
    """Write the files of a partition to a directory."""
    with _holder(options) as holder:
        written = holder.files.extract(options.dest, overwrite=options.force, resume=options.resume)
    print(f"{counted(len(written), 'file')} written to {printable(options.dest)}")
    return DONE


def run_pxe(options: argparse.Namespace) -> int:
    """Write the files that a PXE server needs; bad input where a module of the configuration is missing."""
    with _image(options) as image:
        export = export_pxe(
            image,
            options.dest,
            label=options.label,
            overwrite=options.force,
            mode="install" if options.install else None,
            bank=_bank(options.bank),
            prefix=options.prefix,
            kernel_options=options.kernel_option,
            ipxe=options.ipxe,
            overlay=_overlays(options.overlay),
            keep_overlaid=options.overlay_keep,
        )
    if export.default is None:
        boots = "no entry of PXELINUX, as there is no loader for BIOS"
    elif export.default.casefold() == export.label.casefold():
        boots = f"label {export.label} boots"
    else:
        boots = f"label {export.label} was added, {printable(export.default)} boots when nobody chooses"
    print(f"{counted(len(export.files), 'file')} written to {printable(options.dest)}; {boots}")
    print(f"  kernel {export.kernel}")
    print(f"  append {printable(export.append)}")
    for option in export.left_out:
        print(f"  left out of the kernel's options: {printable(option)}, which means nothing over the network")
    for name in export.missing:
        print(f"vmvisor-image: boot.cfg names {printable(name)}, which the boot bank lacks", file=sys.stderr)
    return BAD_INPUT if export.missing else DONE


def _bank(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdecimal() else text


def run_system(options: argparse.Namespace) -> int:
    """Print the system that an image boots."""
    with _image(options) as image:
        system = image.system(_bank(options.bank))
        options.problems += system.problems
        if options.json:
            print(json.dumps(system.to_dict(hashes=True), indent=2))
            return DONE
        if options.files:
            for file in system.files.values():
                print(f"{file.size:>12}  {printable(system.files.origin(file.path)):14}  {printable(file.path)}")
            options.problems += system.files.problems
            return DONE
        named = f"{system.product or 'unknown product'} {system.version or ''} build {system.build or 'unknown'}"
        print(printable(named))
        for bank in system.banks:
            state = _state(bank, image.partitions)
            print(f"  boot bank in partition {bank.number}: {printable(bank.build or 'no build')}, {printable(state)}")
        for number, module in enumerate(system.modules):
            size = "missing" if module.size is None else f"{module.size} bytes"
            print(f"  {number:>3}  {printable(module.name):14}  {size:>16}  {printable(module.arguments)}".rstrip())
    return DONE


def _state(bank: BootBank, partitions: PartitionTable) -> str:
    active = partitions.active_bank
    if active is not None and active.number == bank.number:
        return "starts"
    if bank.is_chosen_by_label:
        is_first = partitions[bank.number].role is Role.BOOTBANK
        return "is chosen by its label" if is_first else "is not chosen, by its label"
    return bank.obstacle or "is the older one"


def run_archive(options: argparse.Namespace) -> int:
    """Print a list of an archive's files, or write one of them to standard output."""
    with taking_pipes(options.source) as given, open_archive(given) as whole:
        archive = whole
        for path in options.path[:-1]:
            archive = _file(archive, path).open_archive()
        if options.path:
            file = _file(archive, options.path[-1])
            if not options.list:
                return _write_out(file)
            archive = file.open_archive()
        list_archive(archive)
        options.problems += archive.problems
    return DONE


def _write_out(file: File) -> int:
    for chunk in file.chunks(_CHUNK):
        sys.stdout.buffer.write(chunk)
    return DONE


def run_module(options: argparse.Namespace) -> int:
    """Print the properties of a boot module, or write a file of it to standard output."""
    if options.path is not None:
        with _image(options) as image:
            file = _file(_partition(image, options.partition).files, options.path)
            return _show_module(options, file, options.inner)
    given = {"--index": options.index, "--cache": options.cache, "--member": options.member}
    if any(given.values()) or options.salvage:
        raise InvalidArgument("a module by itself has no image that could be indexed, kept, salvaged or have members")
    limits = _limits(options)
    with open_source(options.source) as opened, limits.operation():
        return _show_module(options, Metered(opened.source, Meter(limits)), options.partition)


def _show_module(options: argparse.Namespace, file: ReadAt, inner: str | None) -> int:
    module = Module(file)
    if inner is not None:
        return _write_out(_file(module.open_archive(), inner))
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


def run_index(options: argparse.Namespace) -> int:
    """Write the index of a compressed image."""
    if options.with_data and options.cache is None:
        options.cache = True
    with _image(options) as image:
        layers, size = image.layers, image.size
    path = getattr(layers[0].source, "index_path", None) if layers else None
    if path is None:
        kind = layers[0].kind if layers else "not compressed"
        print(f"vmvisor-image: no index was written: {printable(options.source)} is {kind}", file=sys.stderr)
        return BAD_INPUT
    print(f"{printable(path)}: {os.path.getsize(path)} bytes for {size} bytes of data")  # noqa: PTH202
    return DONE


def run_convert(options: argparse.Namespace) -> int:
    """Write the decoded image as seekable zstd."""
    if not options.force and os.path.lexists(options.dest):  # before waiting for a pipe
        raise DestinationExists(f"{options.dest} is already there")
    with taking_pipes(options.source, _limits(options)) as options.source, _image(options) as image:
        done = convert(image, options.dest, level=options.level, threads=options.threads, overwrite=options.force)
        if find_table(image.disk).scheme != "none":  # of a truncated disk, the existing part was converted
            options.problems += image.partitions.problems
    resumed = f" (the first {done.resumed_at} from an earlier run)" if done.resumed_at else ""
    print(f"{printable(options.dest)}: {done.size} bytes{resumed} in {done.compressed}")
    return DONE


def run_hexdump(options: argparse.Namespace) -> int:
    """Print bytes of the disk or of a partition; equal lines once, then a star."""
    with _image(options) as image:
        target = image if options.partition is None else _partition(image, options.partition)
        end = options.offset + options.length
        repeated, starred = b"", False
        for offset in range(options.offset, end, _CHUNK):
            data = read_up_to(target, offset, min(_CHUNK, end - offset)) or target.read_at(offset, 1)
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


def run_verify(options: argparse.Namespace) -> int:
    """Print the report of a verification; bad input where there is a problem."""
    if options.manifest is not None and not options.force and os.path.lexists(options.manifest):
        raise DestinationExists(f"{options.manifest} is already there")
    if options.manifest is not None and not is_url(options.source):
        check_apart(Path(options.manifest), options.source)
    with showing_progress("verifying") as progress:
        report = verify(
            options.source,
            threads=options.threads,
            algorithms=("sha256", *dict.fromkeys(options.hash)),
            progress=progress,
            member=options.member,
            limits=_limits(options),
        )
    if options.manifest is not None:
        write_whole(Path(options.manifest), report.manifest())
    if options.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        for line in report.lines():
            print(printable(line))
    return DONE if report.is_sound else BAD_INPUT


def run_scan(options: argparse.Namespace) -> int:
    """Print or write a row for each image; bad input where any is not sound."""
    from vmvisor_image import fleet

    with contextlib.ExitStack() as stack:
        executor, workers = None, options.workers
        if options.scheduler is not None:
            executor, cores = stack.enter_context(_cluster(options.scheduler))
            workers = workers or cores
        rows = fleet.stream(
            options.sources,
            executor,
            workers=workers,
            threads=options.threads,
            detail=options.detail,
            limits=_limits(options),
            progress=stack.enter_context(showing_progress("scanning", "images")),
        )
        if options.out is None:
            bad = print_rows(rows)
        else:
            tally = fleet.write(rows, options.out, overwrite=options.force)
            print(f"{printable(options.out)}: {counted(tally.images, 'image')}, {tally.bad} of them bad")
            bad = tally.bad
    return BAD_INPUT if bad else DONE


@contextlib.contextmanager
def _cluster(address: str) -> Iterator[tuple[Executor, int]]:
    """Executor for tasks on a dask cluster, and its number of threads."""
    try:
        from distributed import Client
        from distributed.comm.addressing import resolve_address
    except ImportError as error:
        raise UsageError(f"{error}: pip install 'vmvisor-image[dask]'") from error
    try:
        resolve_address(address)  # first: a client with an invalid address complains when Python ends
        client = Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"no dask scheduler at {address!r}: {error}") from error
    with client, client.get_executor() as executor:
        yield executor, sum(client.nthreads().values()) or 1
