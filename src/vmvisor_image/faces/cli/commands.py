"""Implementation of the commands, one function for each, which gives the exit status."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vmvisor_image.archives.archive import Archive, Metered, open_archive
from vmvisor_image.base.destination import check_apart, write_whole
from vmvisor_image.base.limits import Meter
from vmvisor_image.base.names import printable
from vmvisor_image.base.system_errors import in_words
from vmvisor_image.boot.bootable import find_boot_partition, find_bootable
from vmvisor_image.boot.envelope import read_envelope
from vmvisor_image.boot.modules import WITHOUT_FILES, Module
from vmvisor_image.boot.pxe import PxeExport
from vmvisor_image.compressions.peel import BZIP2
from vmvisor_image.disk.banks import BootBank
from vmvisor_image.disk.convert import check_suffix, convert, is_raw
from vmvisor_image.disk.explanation import counted
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import Partition
from vmvisor_image.disk.partition_table import PartitionTable
from vmvisor_image.disk.paths import entry_at
from vmvisor_image.disk.tables.find import find_table
from vmvisor_image.disk.tables.table import is_lost
from vmvisor_image.errors import (
    CorruptImage,
    DestinationExists,
    InvalidArgument,
    NotAFile,
    NotAnArchive,
    PartitionNotFound,
    PathNotFound,
    UsageError,
)
from vmvisor_image.faces.cli.advice import AGAIN, command, no_disk, way_of, with_step
from vmvisor_image.faces.cli.bundles import export_of, export_of_bundle, print_packages
from vmvisor_image.faces.cli.damage import step_of_verification, step_past_damage
from vmvisor_image.faces.cli.layout import print_item
from vmvisor_image.faces.cli.opening import (
    BAD_INPUT,
    DONE,
    MISUSE,
    bank_of,
    image_of,
    limits_of,
    named_partition,
    opened_image,
)
from vmvisor_image.faces.cli.paths import directory_given, write_out
from vmvisor_image.faces.cli.progress import showing_progress
from vmvisor_image.faces.cli.search import print_search
from vmvisor_image.faces.cli.show import (
    list_archive,
    print_partition,
    print_report,
    print_rows,
    print_rows_as_json,
    print_verification,
)
from vmvisor_image.faces.shared import columns_of, padded
from vmvisor_image.files.file import Directory, File
from vmvisor_image.packages.certificates import open_certificates
from vmvisor_image.reports.inspection import report as report_of
from vmvisor_image.reports.verification import verify
from vmvisor_image.streams.opening import open_source
from vmvisor_image.streams.pipes import PipeSource, taking_pipes
from vmvisor_image.streams.urls import is_url
from vmvisor_image.volumes.role import Role

if TYPE_CHECKING:  # what `scan` alone needs is imported by it: the other commands start sooner
    from concurrent.futures import Executor

    from vmvisor_image.fleet import Row

_OVERLAID = "oem.tgz"
"""Name of the module for additions by others."""
_NO_MODULE = (
    "neither a program (ELF), an archive (tar, vmtar, zip, ar, ISO 9660), an encrypted configuration nor microcode"
)
"""What a file is that is no boot module."""


def _overlays(given: Sequence[str]) -> dict[str, str]:
    """Directories by module."""
    found = {}
    for text in given:
        module, separator, folder = text.partition("=")
        found[module if separator else _OVERLAID] = folder if separator else text
    return found


def run_info(options: argparse.Namespace) -> int:
    """Print the report of an image, or the details of one partition, or what a search finds."""
    if options.fields and options.partition is None:
        raise InvalidArgument("--fields is for one partition: name it behind SRC")
    if options.search:
        if options.partition is not None:
            raise InvalidArgument("--search is for the whole image: leave the partition out")
        with opened_image(options) as image:
            print_search(image, options)
        return DONE
    if options.partition is not None:
        if options.json:
            raise InvalidArgument("--json is for the whole image: leave the partition out")
        with opened_image(options) as image:
            partition = named_partition(image, options.partition)
            options.read = [partition]
            print_partition(partition, fields=options.fields)
        return DONE
    with showing_progress() as progress, image_of(options, options.source, progress) as image:
        report = report_of(image)
        step = step_past_damage(image, options) if report.problems else None
    is_disk = report.scheme != "none" or report.partitions or not report.problems
    if options.json:
        print(json.dumps(report.to_dict(), indent=2))
    elif is_disk or report.layers:  # these say something of it
        print_report(report, explain=options.explain)
    if not is_disk:
        raise no_disk(report.problems[0], options.source, report.size, step, way_of(options))
    options.problems += report.problems
    options.step = step
    return _check(options) if options.checksums else DONE


def _check(options: argparse.Namespace) -> int:
    with opened_image(options) as image:
        found = image.checksums()
    if not found:
        print("\nno checksum file lies beside what was taken out")
    for checksum in found:
        verdict = "right" if checksum.is_right else f"WRONG: {checksum.found}, not {checksum.expected}"
        print(f"\n{printable(checksum.path)}: {checksum.algorithm} of {printable(checksum.listed_in)} is {verdict}")
    return DONE if all(checksum.is_right for checksum in found) else BAD_INPUT


def run_pxe(options: argparse.Namespace) -> int:
    """Write the files that a PXE server needs; bad input where a module or package is missing."""
    overlay = _overlays(options.overlay)
    if (found := export_of_bundle(options, overlay)) is not None:
        return _print_export(found, options)
    with opened_image(options) as image, _naming_a_bank(options, image):
        export = export_of(image, options, overlay)
        if not options.install and (number := find_bootable(image, bank_of(options.bank)).number) is not None:
            options.read = [*filter(None, (image.partitions[number], find_boot_partition(image)))]
    return _print_export(export, options)


def _print_export(export: PxeExport, options: argparse.Namespace) -> int:
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
    print_packages(export)
    for name in export.missing:
        print(f"vmvisor-image: boot.cfg names {printable(name)}, which the boot bank lacks", file=sys.stderr)
    return BAD_INPUT if export.missing or export.problems else DONE


@contextlib.contextmanager
def _naming_a_bank(options: argparse.Namespace, image: Image) -> Iterator[None]:
    """Block in which it is an error with a next step that the boot loader starts no bank."""
    try:
        yield
    except PartitionNotFound as error:
        if options.bank != "active" or not image.partitions.banks:
            raise
        dest = getattr(options, "dest", None)
        given = [*(() if dest is None else (dest,)), "--bank", str(image.partitions.banks[0].number)]
        name = "system" if dest is None else "pxe"
        raise error.restated(f"{error}: {command(name, options.source, *given, *way_of(options))}") from error


def run_system(options: argparse.Namespace) -> int:
    """Print the system that an image boots."""
    with opened_image(options) as image:
        with _naming_a_bank(options, image):
            system = image.system(bank_of(options.bank))
        options.problems += system.problems
        if system.partition is not None:
            options.read = [image.partitions[system.partition]]
        if options.json:
            print(json.dumps(system.to_dict(hashes=True), indent=2))
            return DONE
        if options.files:
            for file in system.files.values():
                origin = padded(printable(system.files.origin(file.path)), 14)
                print(f"{file.size:>12}  {origin}  {printable(file.path)}")
            options.problems += system.files.problems
            return DONE
        named = f"{system.product or 'unknown product'} {system.version or ''} build {system.build or 'unknown'}"
        print(printable(named))
        for bank in system.banks:
            state = _state(bank, image.partitions)
            print_item(
                f"boot bank in partition {bank.number}: {bank.build or 'no build'}, {state}", "  ", hanging="    "
            )
        starts = image.partitions.active_bank is not None or any(bank.is_chosen_by_label for bank in system.banks)
        if system.banks and not starts:
            print_item(
                f"the boot loader starts no bank; these are the modules of partition {system.partition}:",
                "  ",
                hanging="    ",
            )
        names = [printable(module.name) for module in system.modules]
        sizes = ["missing" if module.size is None else f"{module.size} bytes" for module in system.modules]
        wide, long = (max(map(columns_of, column), default=0) for column in (names, sizes))
        for number, module in enumerate(system.modules):
            print_item(module.arguments, f"  {number:>3}  {padded(names[number], wide)}  {sizes[number]:>{long}}  ")
    return DONE


def _state(bank: BootBank, partitions: PartitionTable) -> str:
    active = partitions.active_bank
    if active is not None and active.number == bank.number:
        return "starts"
    if bank.is_chosen_by_label:
        is_first = partitions[bank.number].role is Role.BOOTBANK
        return "is chosen by its label" if is_first else "is not chosen, by its label"
    return "does not start: " + (bank.obstacle or "another one is newer, or as new and before it")


def run_archive(options: argparse.Namespace) -> int:
    """Print a list of an archive's files, or write one of them to standard output."""
    with taking_pipes(options.source) as given, _archive(given, options) as whole:
        archive = whole
        for depth, path in enumerate(options.path[:-1]):
            archive = _member(archive, path, options, depth).open_archive()
        if options.path:
            file = _member(archive, options.path[-1], options, len(options.path) - 1)
            if not options.list:
                if options.json:
                    raise InvalidArgument("--json is for a list: give --list, too, or leave FILE out")
                return write_out(file)
            archive = file.open_archive()
        list_archive(archive, as_json=options.json)
        options.problems += archive.problems
    return DONE


def _member(archive: Archive, path: str, options: argparse.Namespace, depth: int) -> File:
    """A file of an archive, which lies in `depth` others."""
    way = options.path[:depth]
    with _listed_by(command("archive", options.source, *way, *(["--list"] if way else []))):
        return archive[path]


@contextlib.contextmanager
def _listed_by(listing: str) -> Iterator[None]:
    """Block in which a path that is not there is an error with the command that lists what is there."""
    try:
        yield
    except PathNotFound as error:
        if error.similar:
            raise
        raise error.restated(f"{error}; {listing} lists what is there") from error


def _archive(given: str | PipeSource, options: argparse.Namespace) -> Archive:
    """The archive at a path, or in a pipe."""
    source, paths = options.source, options.path
    try:
        return open_archive(given)
    except NotAnArchive as error:
        with open_source(given) as opened:
            is_empty = not opened.source.read_up_to(0, 1)
        if is_empty:
            step = AGAIN
        elif not paths:
            step = f"{command('info', source)} reads a disk image"
        elif options.list or len(paths) > 1:
            step = f"of a disk image, {command('module', source, *paths[:2])} shows that"
        else:
            step = f"of a disk image, {command('cat', source, paths[0])} writes that file"
        raise with_step(error, step) from error


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
    with _listed_by(command("module", options.source, *place, *way_of(options))):
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


def run_index(options: argparse.Namespace) -> int:
    """Write the index of a compressed image."""
    if options.with_data and options.cache is None:
        options.cache = True
    with opened_image(options) as image:
        layers, size, problems = image.layers, image.size, image.layer_problems
    path = getattr(layers[0].source, "index_path", None) if layers else None
    if path is None:
        kind = layers[0].kind if layers else "not compressed"
        reason = f"is {kind}, and only bzip2 needs one: use it as it is"
        if problems and kind == BZIP2:
            reason = "has no healthy block before the damage"
        print(f"vmvisor-image: no index was written: {printable(options.source)} {reason}", file=sys.stderr)
        return BAD_INPUT
    print(f"{printable(path)}: {os.path.getsize(path)} bytes for {size} bytes of data")  # noqa: PTH202
    return DONE


def run_convert(options: argparse.Namespace) -> int:
    """Write the decoded image as seekable zstd, or as a raw disk."""
    given = options.source
    check_suffix(Path(options.dest))  # before waiting for a pipe
    if not options.force and os.path.lexists(options.dest):
        raise DestinationExists(f"{options.dest} is already there")
    with taking_pipes(options.source, limits_of(options)) as options.source, opened_image(options) as image:
        table = image.partitions
        is_virtual = image.chain[0].kind != "raw"  # which is a disk even if it has no partition table
        is_disk = is_virtual or next(table.find(), None) is not None
        if not is_disk and (problems := table.problems):  # nothing is written of what is no disk
            raise no_disk(problems[0], given, image.known_size, way=way_of(options))
        if is_raw(Path(options.dest)):
            options.left_behind, options.going_on = "nothing is left behind", "begin again"
        done = convert(image, options.dest, level=options.level, threads=options.threads, overwrite=options.force)
        if find_table(image.disk).scheme != "none":  # of a truncated disk, the existing part was converted
            options.problems += image.partitions.problems
        resumed = f" (the first {done.resumed_at} from an earlier run)" if done.resumed_at else ""
        stored = "" if is_raw(Path(options.dest)) else f" in {done.compressed}"
        print(f"{printable(options.dest)}: {done.size} bytes{resumed}{stored}")
    return DONE


def run_verify(options: argparse.Namespace) -> int:
    """Print the report of a verification; bad input where there is a problem."""
    if options.manifest is not None and not options.force and os.path.lexists(options.manifest):
        raise DestinationExists(f"{options.manifest} is already there")
    if options.manifest is not None and not is_url(options.source):
        check_apart(Path(options.manifest), options.source)
    certificates = open_certificates(*options.certificate)
    with showing_progress("verifying") as progress:
        report = verify(
            options.source,
            threads=options.threads,
            algorithms=("sha256", *dict.fromkeys(options.hash)),
            progress=progress,
            hashing=None if progress is None else progress.phase("hashing"),
            member=options.member,
            limits=limits_of(options),
            salvage=options.salvage,
            certificates=certificates,
        )
    is_no_disk = report.scheme == "none" and not report.partitions and len(report.problems) > 0
    if options.manifest is not None and not is_no_disk:
        write_whole(Path(options.manifest), report.manifest())
    if options.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print_verification(report)
    step = step_of_verification(report, options)
    if is_no_disk:
        first = next((each for each in report.problems if is_lost([each])), report.problems[0])
        error = no_disk(first, options.source, report.size, step)
        print(f"vmvisor-image: {printable(str(error))}", file=sys.stderr)
    elif step is not None:
        print(f"vmvisor-image: {printable(step)}", file=sys.stderr)
    return DONE if report.is_sound else BAD_INPUT


def run_scan(options: argparse.Namespace) -> int:
    """Print or write a row for each image; bad input where any is not sound, misuse where there is none of them."""
    from vmvisor_image import fleet

    if options.json and options.out is not None:
        raise InvalidArgument("--json is for standard output: a DEST of --out that ends in .jsonl gets the same rows")
    if options.out is not None:
        written = options.out.replace("{", "{{").replace("}", "}}")  # it is a format
        options.left_behind, options.to_go_on = f"the rows written to {written} so far are whole", ["--force"]
    with contextlib.ExitStack() as stack:
        executor, workers = None, options.workers
        if options.scheduler is not None:
            executor, cores = stack.enter_context(_cluster(options.scheduler))
            workers = workers or cores
        sources = fleet.expand(options.sources, without=options.out)
        progress = stack.enter_context(showing_progress("scanning", "images"))
        if progress is not None:
            progress(0, len(sources))
        done = fleet.stream(
            sources,
            executor,
            workers=workers,
            threads=options.threads,
            detail=options.detail,
            limits=limits_of(options),
            salvage=options.salvage,
            provenance=options.provenance,
            certificates=options.certificate,
            host=options.host,
            progress=progress,
        )
        if isinstance(done, Generator):
            stack.callback(done.close)  # also where the rows can't be written
        missing: list[str] = []
        rows = _noting_missing(_in_order(done, sources), missing)
        if options.out is None and options.json:
            bad = print_rows_as_json(rows)
        elif options.out is None:
            bad = print_rows(rows, sources, is_salvaging=options.salvage)
        else:
            tally = fleet.write(rows, options.out, overwrite=options.force)
            print(f"{printable(options.out)}: {counted(tally.images, 'image')}, {tally.bad} of them bad")
            bad = tally.bad
    if sources and len(missing) == len(sources):
        return MISUSE  # as of a command that takes one source
    return BAD_INPUT if bad else DONE


def _noting_missing(rows: Iterator[Row], missing: list[str]) -> Iterator[Row]:
    """The same rows; the paths of sources that are not there are added to `missing`."""
    for row in rows:
        if row["error"] == FileNotFoundError.__name__:
            missing.append(row["path"])
        yield row


def _in_order(rows: Iterator[Row], sources: Sequence[object]) -> Iterator[Row]:
    """Rows in the order of their sources, so that two runs print the same; each waits for those before it.

    Where the rows end early, as on Ctrl-C, those that wait come before the error.
    """
    waiting: dict[str, list[Row]] = {}
    stopped: BaseException | None = None
    for source in sources:
        path = str(source).encode("utf-8", "backslashreplace").decode()  # as the rows have it
        while stopped is None and path not in waiting:
            try:
                row = next(rows)
            except BaseException as error:  # noqa: BLE001  # it is raised after the rows that wait
                stopped = error
            else:
                waiting.setdefault(row["path"], []).append(row)
        if path in waiting:
            yield waiting[path].pop(0)
            if not waiting[path]:
                del waiting[path]
    for left in waiting.values():
        yield from left
    if stopped is None:
        yield from rows
    elif not isinstance(stopped, StopIteration):
        raise stopped


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
        raise UsageError(f"no dask scheduler at {address!r}: {in_words(error)}") from error
    with client, client.get_executor() as executor:
        yield executor, sum(client.nthreads().values()) or 1
