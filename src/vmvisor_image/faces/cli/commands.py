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

from vmvisor_image.archives.archive import Archive, Metered, open_archive
from vmvisor_image.base.destination import check_apart, write_whole
from vmvisor_image.base.limits import Meter
from vmvisor_image.base.names import printable
from vmvisor_image.base.system_errors import in_words
from vmvisor_image.boot.envelope import read_envelope
from vmvisor_image.boot.modules import WITHOUT_FILES, Module
from vmvisor_image.boot.pxe import export_pxe
from vmvisor_image.compressions.peel import BZIP2
from vmvisor_image.disk.banks import BootBank
from vmvisor_image.disk.convert import convert
from vmvisor_image.disk.explanation import counted
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition_table import PartitionTable
from vmvisor_image.disk.tables.find import find_table
from vmvisor_image.disk.tables.table import is_lost
from vmvisor_image.errors import (
    CorruptImage,
    DestinationExists,
    InvalidArgument,
    NotAFile,
    NotAnArchive,
    UsageError,
)
from vmvisor_image.faces.cli.advice import AGAIN, command, no_disk, with_step
from vmvisor_image.faces.cli.damage import step_of_verification, step_past_damage
from vmvisor_image.faces.cli.layout import print_item
from vmvisor_image.faces.cli.opening import (
    BAD_INPUT,
    DONE,
    limits_of,
    named_partition,
    open_options,
    opened_image,
)
from vmvisor_image.faces.cli.paths import write_out
from vmvisor_image.faces.cli.progress import showing_progress
from vmvisor_image.faces.cli.search import print_search
from vmvisor_image.faces.cli.show import (
    list_archive,
    print_partition,
    print_report,
    print_rows,
    print_verification,
)
from vmvisor_image.files.file import File
from vmvisor_image.reports.inspection import report as report_of
from vmvisor_image.reports.verification import verify
from vmvisor_image.streams.opening import open_source
from vmvisor_image.streams.pipes import PipeSource, taking_pipes
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.streams.urls import is_url
from vmvisor_image.volumes.role import Role

if TYPE_CHECKING:  # what `scan` alone needs is imported by it: the other commands start sooner
    from concurrent.futures import Executor

_OVERLAID = "oem.tgz"
"""Name of the module for additions by others."""


def _overlays(given: Sequence[str]) -> dict[str, str]:
    """Directories by module."""
    found = {}
    for text in given:
        module, separator, folder = text.partition("=")
        found[module if separator else _OVERLAID] = folder if separator else text
    return found


def run_info(options: argparse.Namespace) -> int:
    """Print the report of an image, or the details of one partition, or what a search finds."""
    if options.search:
        if options.partition is not None:
            raise InvalidArgument("--search is for the whole image: leave the partition out")
        with opened_image(options) as image:
            print_search(image, as_json=options.json)
        return DONE
    if options.partition is not None:
        if options.json:
            raise InvalidArgument("--json is for the whole image: leave the partition out")
        with opened_image(options) as image:
            print_partition(named_partition(image, options.partition))
        return DONE
    with showing_progress() as progress, Image.open(options.source, **open_options(options, progress)) as image:
        report = report_of(image)
        step = step_past_damage(image, options) if report.problems else None
    if options.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print_report(report, explain=options.explain)
    if report.scheme == "none" and not report.partitions:
        for problem in report.problems:
            raise no_disk(problem, options.source, report.size, step)
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
    """Write the files that a PXE server needs; bad input where a module of the configuration is missing."""
    with opened_image(options) as image:
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
    with opened_image(options) as image:
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
            print_item(
                f"boot bank in partition {bank.number}: {bank.build or 'no build'}, {state}", "  ", hanging="    "
            )
        names = [printable(module.name) for module in system.modules]
        sizes = ["missing" if module.size is None else f"{module.size} bytes" for module in system.modules]
        wide, long = (max(map(len, column), default=0) for column in (names, sizes))
        for number, module in enumerate(system.modules):
            print_item(module.arguments, f"  {number:>3}  {names[number]:{wide}}  {sizes[number]:>{long}}  ")
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
    with taking_pipes(options.source) as given, _archive(given, options.source) as whole:
        archive = whole
        for path in options.path[:-1]:
            archive = archive[path].open_archive()
        if options.path:
            file = archive[options.path[-1]]
            if not options.list:
                return write_out(file)
            archive = file.open_archive()
        list_archive(archive)
        options.problems += archive.problems
    return DONE


def _archive(given: str | PipeSource, source: str) -> Archive:
    """The archive at a path, or in a pipe."""
    try:
        return open_archive(given)
    except NotAnArchive as error:
        with open_source(given) as opened:
            is_empty = not opened.source.read_up_to(0, 1)
        raise with_step(error, AGAIN if is_empty else f"{command('info', source)} reads a disk image") from error


def run_module(options: argparse.Namespace) -> int:
    """Print the properties of a boot module, or write a file of it to standard output."""
    path = options.partition
    if path is not None and "/" in path and options.inner is None and (options.path is not None or _is_disk(options)):
        options.path, options.inner = path, options.path
        with opened_image(options) as image:
            found = image.resolve(path)
            if not isinstance(found, File):
                raise NotAFile(f"{path!r} is not a file: a module is one")
            return _show_module(options, found, options.inner)
    if options.path is not None:
        with opened_image(options) as image:
            file = named_partition(image, options.partition).files[options.path]
            return _show_module(options, file, options.inner)
    given = {"--index": options.index, "--cache": options.cache, "--member": options.member}
    if any(given.values()) or options.salvage:
        raise InvalidArgument("a module by itself has no image that could be indexed, kept, salvaged or have members")
    limits = limits_of(options)
    with open_source(options.source) as opened, limits.operation():
        return _show_module(options, Metered(opened.source, Meter(limits)), options.partition)


def _is_disk(options: argparse.Namespace) -> bool:
    """Whether the source is a disk with partitions, and not a module by itself."""
    try:
        with Image.open(options.source, **open_options(options, None)) as image:
            return len(image.partitions) > 0
    except (CorruptImage, UsageError):
        return False


def _show_module(options: argparse.Namespace, file: ReadAt, inner: str | None) -> int:
    module = Module(file)
    if inner is not None:
        return write_out(module.open_archive()[inner])
    if module.kind in ("empty", "unknown") and options.path is None:
        _refuse_module(module, options.source)
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


def _refuse_module(module: Module, source: str) -> None:
    """Raise the error for a file by itself in which no module was found; an empty one may well be compressed."""
    if module.kind == "unknown":
        raise CorruptImage(
            "it is neither a program (ELF), an archive (tar, vmtar, zip, ar, ISO 9660), an encrypted configuration nor"
            f" microcode; {command('info', source)} says what it looks like, and"
            " `vmvisor-image module SRC PARTITION PATH` reads a module of a disk image",
            structure=" in ".join(("boot module", *reversed(module.layers))),
            offset=0,
        )
    if not module.layers:
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
    """Write the decoded image as seekable zstd."""
    given = options.source
    if not options.force and os.path.lexists(options.dest):  # before waiting for a pipe
        raise DestinationExists(f"{options.dest} is already there")
    with taking_pipes(options.source, limits_of(options)) as options.source, opened_image(options) as image:
        done = convert(image, options.dest, level=options.level, threads=options.threads, overwrite=options.force)
        if find_table(image.disk).scheme != "none":  # of a truncated disk, the existing part was converted
            options.problems += image.partitions.problems
        resumed = f" (the first {done.resumed_at} from an earlier run)" if done.resumed_at else ""
        print(f"{printable(options.dest)}: {done.size} bytes{resumed} in {done.compressed}")
        if not len(image.partitions) and (problems := image.partitions.problems):
            raise no_disk(problems[0], given, done.size)
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
            hashing=None if progress is None else progress.phase("hashing"),
            member=options.member,
            limits=limits_of(options),
            salvage=options.salvage,
        )
    if options.manifest is not None:
        write_whole(Path(options.manifest), report.manifest())
    if options.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print_verification(report)
    step = step_of_verification(report, options)
    if report.scheme == "none" and not report.partitions and report.problems:
        first = next((each for each in report.problems if is_lost([each])), report.problems[0])
        error = no_disk(first, options.source, report.size, step)
        print(f"vmvisor-image: {printable(str(error))}", file=sys.stderr)
    elif step is not None:
        print(f"vmvisor-image: {printable(step)}", file=sys.stderr)
    return DONE if report.is_sound else BAD_INPUT


def run_scan(options: argparse.Namespace) -> int:
    """Print or write a row for each image; bad input where any is not sound."""
    from vmvisor_image import fleet

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
        rows = fleet.stream(
            sources,
            executor,
            workers=workers,
            threads=options.threads,
            detail=options.detail,
            limits=limits_of(options),
            salvage=options.salvage,
            progress=progress,
        )
        if options.out is None:
            bad = print_rows(rows, sources, is_salvaging=options.salvage)
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
        raise UsageError(f"no dask scheduler at {address!r}: {in_words(error)}") from error
    with client, client.get_executor() as executor:
        yield executor, sum(client.nthreads().values()) or 1
