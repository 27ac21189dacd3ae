"""The command line: ``vmvisor-image``. Exit status 0 done, 1 bad input, 2 misuse."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from vmvisor_image import (
    Archive,
    CorruptImage,
    Datastore,
    DestinationExists,
    DestinationFailed,
    DestinationFull,
    File,
    FileTree,
    Hexdump,
    Image,
    ImageReport,
    InvalidArgument,
    LimitExceeded,
    Limits,
    NotAFileSystem,
    Partition,
    PartitionNotFound,
    PartitionReport,
    PartitionTable,
    PathNotFound,
    Problem,
    ReadAt,
    Role,
    UsageError,
    VmfsVolume,
    __version__,
    convert,
    export_pxe,
    inspect,
    open_archive,
    open_datastore,
    verify,
)
from vmvisor_image.archives.archive import Metered
from vmvisor_image.boot.banks import BootBank
from vmvisor_image.boot.envelope import read_envelope
from vmvisor_image.boot.modules import WITHOUT_FILES, Module
from vmvisor_image.destination import FULL, check_apart, write_whole
from vmvisor_image.explanation import counted, described_generation
from vmvisor_image.limits import DEFAULT_LIMITS, Meter
from vmvisor_image.names import printable as _printable
from vmvisor_image.pipes import taking_pipes
from vmvisor_image.remote import is_url
from vmvisor_image.sources import open_source
from vmvisor_image.streams import read_up_to
from vmvisor_image.tables.find import find_table

if TYPE_CHECKING:  # what `scan` alone needs is imported by it: the other commands start sooner
    from concurrent.futures import Executor

    from vmvisor_image.fleet import Row

_DONE, _BAD_INPUT, _MISUSE = 0, 1, 2
_INTERRUPTED = 130
_CHUNK = 1 << 20
_MAP_WIDTH = 72
_OVERLAID = "oem.tgz"
"""The module that is made for what others add."""
_STRIP = " .:-=+*%@"
"""For entropy of 0 to 8 bits per byte."""
_ALSO_A_PIPE = ", also a pipe, which is copied to a temporary file"
_SHELLS = ("bash", "zsh", "fish")
_COMPLETED = {"SRC": "FILE", "DEST": "FILE", "FOLDER": "DIRECTORY", "[MODULE=]FOLDER": "DIRECTORY"}
"""What shtab completes in the place of an argument, by its name in the help."""
_MISUSED = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)

Progress = Callable[[int, int | None], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; errors are one line on standard error."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed before this began
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115  # open for as long as Python runs
    options = _parser().parse_args(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        options.problems = []
        status: int = options.run(options)
        sys.stdout.flush()
        if options.problems:
            _complain([*dict.fromkeys(options.problems)], "what was shown or written may be incomplete: ")
            status = status or _BAD_INPUT
    except DestinationFailed as error:  # no misuse: the disk is full, or the folder is gone
        return _fail(error, _BAD_INPUT)
    except (UsageError, *_MISUSED) as error:
        _fail(error, _MISUSE)
        _complain([*dict.fromkeys(options.problems)], "the image is damaged: ")
        return _BAD_INPUT if options.problems else _MISUSE
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _DONE
    except (CorruptImage, LimitExceeded, OSError) as error:
        if isinstance(error, OSError) and error.errno in FULL and error.filename is None:  # all else is named
            error = DestinationFull("standard output: there is no room left")
        return _fail(error, _BAD_INPUT)
    except KeyboardInterrupt:
        return _INTERRUPTED
    return status


def _fail(error: Exception, status: int) -> int:
    print(f"vmvisor-image: {_printable(str(error))}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    """One that says in one line what is wrong, as all errors are said, and takes options between arguments."""

    _is_interleaving = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse a command's options first, as an argument that may be left out counts as left out at an option."""
        if self._subparsers is not None or self._is_interleaving:
            return super().parse_known_args(args, namespace)
        self._is_interleaving = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_interleaving = False

    def error(self, message: str) -> NoReturn:
        self.exit(_MISUSE, f"vmvisor-image: {_printable(message)}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="vmvisor-image",
        description="Take hypervisor disk images apart: bare (.dd), compressed (.dd.bz2, .gz, .xz, .zst), on an"
        " installer CD (.iso), in an archive (.tgz, .zip), or as a virtual disk (.vmdk, .qcow2, .vhd, .vhdx).",
        epilog="Exit status: 0 done, 1 bad input, 2 misuse.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=f"{_capitalized(text)}.")
        _add_source(added, takes_pipes=name == "convert")
        added.add_argument(
            "--index",
            metavar="FILE",
            default="auto" if name == "index" else None,
            help="keep in FILE where the blocks of a compressed image are, so that the next look decodes less;"
            ' "auto" for beside the image, else in your cache folder' + (" (default: auto)" if name == "index" else ""),
        )
        added.add_argument(
            "--cache",
            metavar="FOLDER",
            type=lambda text: True if text == "auto" else text,
            help='keep what is decoded in FOLDER, as zstd, for the next time; "auto" for beside the image, else in your'
            " cache folder",
        )
        _add_member(added)
        added.add_argument(
            "--salvage", action="store_true", help="place what is behind damage of bzip2 data by the disk's end"
        )
        _add_limits(added)
        added.set_defaults(run=run)
        return added

    def partition_argument(added: argparse.ArgumentParser, nargs: str | None = None) -> None:
        added.add_argument("partition", metavar="PARTITION", nargs=nargs, help="its number or label")

    info = command("info", _info, "show layers, partitions and problems of an image")
    info.add_argument("--json", action="store_true", help="the whole report as JSON")
    partition_argument(info, "?")
    info.add_argument(
        "--checksums", action="store_true", help="check what was taken out of a CD against its imagedd.md5 or the like"
    )
    info.add_argument("--explain", action="store_true", help="say what each partition is for, and why")
    ls = command("ls", _ls, "list the files of one partition, or of all")
    partition_argument(ls, "?")
    cat = command("cat", _cat, "write a file of a partition to standard output")
    partition_argument(cat)
    cat.add_argument("path", metavar="PATH", help="its path from the volume's root")
    extract = command("extract", _extract, "extract every file of a partition to a folder")
    partition_argument(extract)
    resuming = "go on with an extraction that was ended: what is there with the right content stays"
    extract.add_argument("--resume", action="store_true", help=resuming)
    _add_device_option(ls, cat, extract)
    pxe = command("pxe", _pxe, "export what a PXE server needs to boot the image")
    _add_pxe_options(pxe)
    _add_boot_commands(command, partition_argument)
    _add_archive(commands.add_parser)
    for writing in (extract, pxe):
        writing.add_argument("dest", metavar="DEST", help="the folder to write to")
        writing.add_argument("--force", action="store_true", help="replace files that are already there")
    _add_raw_commands(command, partition_argument)
    _add_verify(commands.add_parser)
    _add_scan(commands.add_parser)
    _add_completion(commands.add_parser)
    return parser


def _capitalized(text: str) -> str:
    return text[0].upper() + text[1:]


def _add_completion(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    text = "print a script that completes this command in a shell"
    description = f"{_capitalized(text)}: source <(vmvisor-image completion bash)."
    completion = add_parser("completion", help=text, description=description)
    completion.add_argument("shell", metavar="SHELL", choices=_SHELLS, help=f"one of {', '.join(_SHELLS)}")
    completion.set_defaults(run=_completion)


def _add_archive(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    text = "list an archive, or write a file of it to standard output: a VIB, a module, a bundle, a CD"
    archive = add_parser("archive", help=text, description=f"{_capitalized(text)}.")
    archive.add_argument(
        "source",
        metavar="SRC",
        type=_source,
        help=f"path or URL of a tar, vmtar, zip, ar (VIB) or ISO 9660; - for standard input{_ALSO_A_PIPE}",
    )
    archive.add_argument("path", metavar="FILE", nargs="*", help="a file in it, then one in that, and so on")
    archive.add_argument("--list", action="store_true", help="list what is in the last FILE")
    archive.set_defaults(run=_archive)


def _add_device_option(*parsers: argparse.ArgumentParser) -> None:
    for parser in parsers:
        parser.add_argument(
            "--device",
            metavar="SRC",
            action="append",
            default=[],
            help="another disk that a VMFS datastore lies on; PARTITION is the datastore's label then; may be given"
            " more than once",
        )


def _add_source(parser: argparse.ArgumentParser, *, takes_pipes: bool) -> None:
    text = f"the disk image: a path or a URL; - for standard input{_ALSO_A_PIPE if takes_pipes else ''}"
    parser.add_argument("source", metavar="SRC", type=_source, help=text)
    parser.add_argument("--threads", type=int, metavar="N", help="threads to decode with (default: cores)")


def _source(text: str) -> str:
    """A path or URL as it is given; that of standard input for "-"."""
    return "/dev/stdin" if text == "-" else text


def _add_member(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--member", metavar="PATH", help="which file of a CD or archive is the disk, where there are several"
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-seconds", type=float, metavar="N", help="give an image up that takes longer (default: any time)"
    )
    parser.add_argument(
        "--max-decoded",
        type=_number,
        metavar="BYTES",
        default=DEFAULT_LIMITS.decoded_bytes,
        help="give an image up of which more would have to be decoded (default: 16 TiB)",
    )


def _limits(options: argparse.Namespace) -> Limits:
    return Limits(seconds=options.max_seconds, decoded_bytes=options.max_decoded)


def _add_raw_commands(command: Callable[..., argparse.ArgumentParser], partition_argument: Callable[..., None]) -> None:
    converting = command("convert", _convert, "write the decoded image as seekable zstd, which is quick to read again")
    converting.add_argument("dest", metavar="DEST", help="the file to write (.zst)")
    converting.add_argument("--level", type=int, default=3, help="zstd's compression level (default: %(default)s)")
    converting.add_argument("--force", action="store_true", help="replace the file when it is there")
    indexing = command("index", _index, "find out where the blocks of a compressed image are, and keep that in a file")
    indexing.add_argument("--with-data", action="store_true", help="keep the decoded data, too: --cache auto")
    hexdump = command("hexdump", _hexdump, "show bytes of the disk or of a partition")
    partition_argument(hexdump, "?")
    hexdump.add_argument("-s", "--offset", type=_number, default=0, help="first byte (default: 0; 0x… is hexadecimal)")
    hexdump.add_argument("-n", "--length", type=_number, default=512, help="number of bytes (default: 512)")


def _add_boot_commands(
    command: Callable[..., argparse.ArgumentParser], partition_argument: Callable[..., None]
) -> None:
    system = command("system", _system, "show what an image boots: version, boot banks, modules in load order")
    system.add_argument("--json", action="store_true", help="the same as JSON, with the hash of each module")
    system.add_argument("--files", action="store_true", help="list the files of all modules, and where each is from")
    system.add_argument("--bank", metavar="BANK", help='number or label of a boot bank, or "active"')
    module = command("module", _module, "show what a boot module is, of an image or by itself, and what is in it")
    partition_argument(module, "?")
    module.add_argument("path", metavar="PATH", nargs="?", help="its path from the volume's root")
    inner = "a file in it, to write to standard output; where SRC is the module itself, only this one follows"
    module.add_argument("inner", metavar="FILE", nargs="?", help=inner)


def _add_pxe_options(pxe: argparse.ArgumentParser) -> None:
    pxe.add_argument(
        "--label", help="label of the boot entry (default: product and version, such as esxi-6.7.0; of 3.5 3i)"
    )
    pxe.add_argument("--install", action="store_true", help="export the installer of a CD instead of the system")
    pxe.add_argument(
        "--bank",
        metavar="BANK",
        help='number or label of the boot bank, or "active" for the one that the boot loader would start (default: the'
        " first one, on a disk with a GPT the active one)",
    )
    pxe.add_argument("--prefix", default="", help="folder below DEST for everything but PXELINUX's configuration")
    pxe.add_argument(
        "--kernel-option",
        metavar="OPTION",
        action="append",
        default=[],
        help="an option for the hypervisor's kernel, such as ks=http://…; may be given more than once",
    )
    pxe.add_argument("--ipxe", action="store_true", help="write a script for iPXE, too")
    pxe.add_argument(
        "--overlay",
        metavar="[MODULE=]FOLDER",
        action="append",
        default=[],
        help="put a module made of a folder in the place of one (default: oem.tgz); may be given more than once",
    )
    pxe.add_argument(
        "--overlay-keep", action="store_true", help="keep the files of that module which the folder does not have"
    )


def _add_scan(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    text = "one row for each of many images, as they are done"
    scan = add_parser("scan", help=text, description=f"Show or write {text}; 1 when any has an error or a problem.")
    scan.add_argument(
        "sources",
        metavar="SRC",
        nargs="+",
        type=_source,
        help=f"an image, or a pattern in quotes, such as 'dir/**/*.bz2'; - for standard input{_ALSO_A_PIPE}",
    )
    scan.add_argument(
        "--out", metavar="DEST", help="write the rows to DEST: .jsonl, .ndjson, or .parquet (default: a table)"
    )
    scan.add_argument("--force", action="store_true", help="replace DEST when it is there")
    scan.add_argument("--detail", action="store_true", help="with the whole report of each image, as JSON")
    scan.add_argument("--workers", type=int, metavar="N", help="images to read at once (default: cores)")
    scan.add_argument("--threads", type=int, metavar="N", default=1, help="threads for each image (default: 1)")
    _add_limits(scan)
    scan.add_argument("--scheduler", metavar="URL", help="address of a dask scheduler, such as tcp://host:8786")
    scan.set_defaults(run=_scan)


def _add_verify(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    text = "read all of an image once, and report every check of it, with the hash of every file"
    parser = add_parser("verify", help=text, description=f"{_capitalized(text)}; 1 when anything is wrong.")
    _add_source(parser, takes_pipes=True)
    parser.add_argument("--json", action="store_true", help="the whole report as JSON")
    parser.add_argument(
        "--manifest",
        metavar="DEST",
        help="write the SHA-256 of each file to DEST, for sha256sum -c in a folder to which each partition was"
        " extracted under its number",
    )
    parser.add_argument("--force", action="store_true", help="replace DEST when it is there")
    parser.add_argument(
        "--hash",
        metavar="NAME",
        action="append",
        default=[],
        choices=("sha1", "md5"),
        help="hash with this, too: sha1 or md5; may be given more than once",
    )
    _add_member(parser)
    _add_limits(parser)
    parser.set_defaults(run=_verify)


def _overlays(given: Sequence[str]) -> dict[str, str]:
    """Folders by module."""
    found = {}
    for text in given:
        module, separator, folder = text.partition("=")
        found[module if separator else _OVERLAID] = folder if separator else text
    return found


def _number(text: str) -> int:
    with contextlib.suppress(ValueError):
        if (value := int(text, 0)) >= 0:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes, such as 512 or 0x200")


@contextlib.contextmanager
def _image(options: argparse.Namespace) -> Iterator[Image]:
    with (
        _progress() as progress,
        Image.open(
            options.source,
            threads=options.threads,
            index=options.index,
            cache=options.cache,
            progress=progress,
            member=options.member,
            limits=_limits(options),
            salvage=options.salvage,
        ) as image,
        image.limits.operation(),
    ):
        try:
            yield image
        except (PartitionNotFound, PathNotFound, NotAFileSystem) as error:  # it may be gone by damage
            _check_partitions(image, error)
            options.problems += image.known_problems
            raise
        options.problems += image.known_problems


def _check_partitions(image: Image, cause: Exception | None = None) -> None:
    """Raise what is wrong with an image that has no partitions, where anything is."""
    if not len(image.partitions):
        for problem in image.partitions.problems:
            raise problem.error() from cause


@contextlib.contextmanager
def _progress(doing: str = "decoding", unit: str = "bytes") -> Iterator[Progress | None]:
    """Shows how far it is while standard error is a terminal: with rich where it is installed."""
    if not sys.stderr.isatty():
        yield None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar
    except ImportError:
        with _plain_progress(doing, unit) as progress:
            yield progress
        return
    amount = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn(doing), BarColumn(), amount, TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def _plain_progress(doing: str, unit: str) -> Iterator[Progress]:
    shown = ""
    scale, unit = (1e6, "MB") if unit == "bytes" else (1, unit)

    def show(done: int, total: int | None) -> None:
        nonlocal shown
        text = f"{doing} {done / scale:.0f}" + (f" of {total / scale:.0f}" if total else "") + f" {unit}"
        if text != shown:
            shown = text
            sys.stderr.write(f"\r{text}")
            sys.stderr.flush()

    try:
        yield show
    finally:
        if shown:
            sys.stderr.write("\r" + " " * len(shown) + "\r")
            sys.stderr.flush()


def _partition(image: Image, text: str) -> Partition:
    """The partition of that label, else of that number."""
    if text.isdecimal() and int(text) in image.partitions:
        return image.partitions[int(text)]
    return image.partitions[text]


def _info(options: argparse.Namespace) -> int:
    if options.partition is not None:
        if options.json:
            raise InvalidArgument("--json is for the whole image: leave the partition out")
        with _image(options) as image:
            _print_partition(_partition(image, options.partition))
        return _DONE
    with _progress() as progress:
        report = inspect(
            options.source,
            threads=options.threads,
            index=options.index,
            cache=options.cache,
            progress=progress,
            member=options.member,
            limits=_limits(options),
            salvage=options.salvage,
        )
    if options.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        _print_report(report, explain=options.explain)
    if report.scheme == "none" and not report.partitions:
        for problem in report.problems:
            raise problem.error()
    options.problems += report.problems
    return _check(options) if options.checksums else _DONE


def _check(options: argparse.Namespace) -> int:
    with _image(options) as image:
        found = image.checksums()
    if not found:
        print("\nno checksum file lies beside what was taken out")
    for checksum in found:
        verdict = "right" if checksum.is_right else f"WRONG: {checksum.found}, not {checksum.expected}"
        print(f"\n{_printable(checksum.path)}: {checksum.algorithm} of {_printable(checksum.listed_in)} is {verdict}")
    return _DONE if all(checksum.is_right for checksum in found) else _BAD_INPUT


def _print_report(report: ImageReport, *, explain: bool) -> None:
    print(_printable(report.name or "image"))
    for kind, name in report.layers:
        print(f"  {kind} around {_printable(name or 'the disk')}")
    size = "unknown size" if report.size is None else f"{report.size} bytes ({report.size / (1 << 20):.1f} MiB)"
    print(f"  disk of {size}, partition table: {report.scheme}")
    if (described := described_generation(report.layout, report.generation)) is not None:
        print(f"  {described}")
    for name, value in report.table_facts:
        print(f"  {name}: {value}")
    if report.active_bank is not None:
        print(f"  the boot loader starts partition {report.active_bank}")
    print(f"\n  [{_map(report)}]\n")
    rows = [("#", "Label", "Start", "Size", "Type", "Kind", "Role", "Files"), *map(_row, report.partitions)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if explain:
        for partition in report.partitions:
            print(f"\n{_printable(partition.explanation)}")
    if report.problems:
        print(f"\n{counted(len(report.problems), 'problem')}:")
        for problem in report.problems:
            print(f"  {_printable(str(problem))}")


def _map(report: ImageReport) -> str:
    """The disk from left to right, to scale: a partition's number for what it takes, at least once."""
    ends = [partition.start + partition.size for partition in report.partitions]
    end = max([*ends, report.size or 0, 1])
    cells = ["."] * _MAP_WIDTH
    drawn = [partition for partition in report.partitions if partition.role is not Role.CONTAINER]
    # The large ones first, so that the small ones, of which one cell is all there is, are seen.
    for partition in sorted(drawn, key=lambda partition: -partition.size):
        first = min(partition.start * _MAP_WIDTH // end, _MAP_WIDTH - 1)
        last = max(first + 1, (partition.start + partition.size) * _MAP_WIDTH // end)
        cells[first:last] = str(partition.number % 10) * (last - first)
    return "".join(cells)


def _print_partition(partition: Partition) -> None:
    print(_printable(partition.explain()))
    if partition.is_container:
        return
    found = partition.survey(blocks=_MAP_WIDTH)
    strip = "".join("?" if entropy is None else _STRIP[math.ceil(entropy)] for entropy in found.entropies)
    print(f"\n  [{strip}]")
    sampled = f" ({found.sampled} of each)" if found.sampled < found.block_size else ""
    scale = f"from {_STRIP[0]!r} for zeros to {_STRIP[-1]!r} for random bytes"
    print(f"  entropy by {found.block_size} bytes{sampled}, {scale}")
    for name, record in partition.records.items():
        dump = Hexdump.of(record)
        print(f"\n{name} at byte {dump.offset:#x}")
        for mark in dump.marks:
            print(f"  {mark.start - dump.offset:#05x}  {mark.field:24}  {_printable(mark.value)}")


def _row(partition: PartitionReport) -> tuple[str, ...]:
    return (
        f"{partition.number}{'*' if partition.active else ''}",
        _printable(partition.label or "-"),
        f"{partition.start:#x}",
        f"{partition.size / (1 << 20):.1f} MiB",
        ("" if partition.type_code is None else f"{partition.type_code:02x} ") + partition.type_name,
        partition.kind,
        partition.role.value,
        str(len(partition.files)) if partition.files else "-",
    )


@contextlib.contextmanager
def _holder(options: argparse.Namespace) -> Iterator[Partition | Datastore]:
    """The partition that is meant, or the datastore that it is a device of."""
    with _image(options) as image:
        if not options.device:
            yield _partition(image, options.partition)
            return
        with open_datastore(image, *options.device, volume=options.partition) as datastore:
            yield datastore


def _ls(options: argparse.Namespace) -> int:
    if options.partition is not None or options.device:
        with _holder(options) as holder:
            _list_files(holder.files)
            _list_others(holder)
        return _DONE
    with _image(options) as image:
        _check_partitions(image)
        for partition in image.partitions:
            if partition.is_container:
                continue
            heading = f"Partition {partition.number} {_printable(partition.label or '')} ({partition.kind}):"
            try:
                files = partition.files
            except NotAFileSystem:
                print(f"{heading} no files that can be read")
                continue
            print(heading)
            _list_files(files)
            _list_others(partition)
    return _DONE


def _list_others(holder: Partition | Datastore) -> None:
    """What is in a VMFS volume beside files."""
    volume = holder.volume
    if isinstance(volume, VmfsVolume):
        for path, target in volume.links.items():
            print(f"{'link':>12}  {'':19}  {_printable(path)} -> {_printable(target)}")
        for path, mapping in volume.raw_devices.items():
            print(f"{mapping.size:>12}  {'':19}  {_printable(path)}: raw device mapping, {_printable(mapping.disk)}")
    if isinstance(holder, Datastore):
        _complain(holder.problems)


def _list_files(files: FileTree) -> None:
    for file in files.values():
        modified = "-" if file.modified is None else file.modified.isoformat(" ")
        print(f"{file.size:>12}  {modified:19}  {_printable(file.path)}")


def _cat(options: argparse.Namespace) -> int:
    with _holder(options) as holder:
        return _write_out(_file(holder.files, options.path))


def _file(files: FileTree, path: str) -> File:
    """The file at a path; where there is none, the error names those of a name like it."""
    try:
        return files[path]
    except PathNotFound as error:
        from difflib import get_close_matches

        close = get_close_matches(path, files, 3)
        hint = f"; there is {', '.join(map(repr, close))}" if close else ""
        raise PathNotFound(f"{error}{hint}") from error


def _extract(options: argparse.Namespace) -> int:
    with _holder(options) as holder:
        written = holder.files.extract(options.dest, overwrite=options.force, resume=options.resume)
    print(f"{counted(len(written), 'file')} written to {_printable(options.dest)}")
    return _DONE


def _pxe(options: argparse.Namespace) -> int:
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
        boots = f"label {export.label} was added, {_printable(export.default)} boots when nobody chooses"
    print(f"{counted(len(export.files), 'file')} written to {_printable(options.dest)}; {boots}")
    print(f"  kernel {export.kernel}")
    print(f"  append {_printable(export.append)}")
    for option in export.left_out:
        print(f"  left out of the kernel's options: {_printable(option)}, which means nothing over the network")
    for name in export.missing:
        print(f"vmvisor-image: boot.cfg names {_printable(name)}, which the boot bank lacks", file=sys.stderr)
    return _BAD_INPUT if export.missing else _DONE


def _bank(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdecimal() else text


def _system(options: argparse.Namespace) -> int:
    with _image(options) as image:
        system = image.system(_bank(options.bank))
        options.problems += system.problems
        if options.json:
            print(json.dumps(system.to_dict(hashes=True), indent=2))
            return _DONE
        if options.files:
            for file in system.files.values():
                print(f"{file.size:>12}  {_printable(system.files.origin(file.path)):14}  {_printable(file.path)}")
            options.problems += system.files.problems
            return _DONE
        named = f"{system.product or 'unknown product'} {system.version or ''} build {system.build or 'unknown'}"
        print(_printable(named))
        for bank in system.banks:
            state = _state(bank, image.partitions)
            print(
                f"  boot bank in partition {bank.number}: {_printable(bank.build or 'no build')}, {_printable(state)}"
            )
        for number, module in enumerate(system.modules):
            size = "missing" if module.size is None else f"{module.size} bytes"
            print(f"  {number:>3}  {_printable(module.name):14}  {size:>16}  {_printable(module.arguments)}".rstrip())
    return _DONE


def _state(bank: BootBank, partitions: PartitionTable) -> str:
    active = partitions.active_bank
    if active is not None and active.number == bank.number:
        return "starts"
    if bank.is_chosen_by_label:
        is_first = partitions[bank.number].role is Role.BOOTBANK
        return "is chosen by its label" if is_first else "is not chosen, by its label"
    return bank.obstacle or "is the older one"


def _archive(options: argparse.Namespace) -> int:
    with taking_pipes(options.source) as given, open_archive(given) as whole:
        archive = whole
        for path in options.path[:-1]:
            archive = _file(archive, path).open_archive()
        if options.path:
            file = _file(archive, options.path[-1])
            if not options.list:
                return _write_out(file)
            archive = file.open_archive()
        _list_archive(archive)
        options.problems += archive.problems
    return _DONE


def _list_archive(archive: Archive) -> None:
    _list_files(archive)
    for path, target in archive.links.items():
        print(f"{'link':>12}  {'':19}  {_printable(path)} -> {_printable(target)}")


def _write_out(file: File) -> int:
    for chunk in file.chunks(_CHUNK):
        sys.stdout.buffer.write(chunk)
    return _DONE


def _module(options: argparse.Namespace) -> int:
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
        key = "" if signature.key_id is None else f", key {_printable(signature.key_id)}"
        print(f"signed: schema {signature.schema}{key}, {signature.length} bytes (not verified)")
    if (kernel := module.kernel) is not None:
        loads = "Multiboot" if kernel.multiboot is not None else "no Multiboot header"
        print(f"{kernel.bits}-bit {kernel.architecture}, {'ESXBootInfo' if kernel.esx_boot_info else loads}")
        print(" ".join(_printable(text) for text in module.version if text))
    for update in module.microcode:
        made = "" if update.released is None else f", {update.released}"
        print(
            f"{update.offset:>12}  {update.size:>8} bytes  {update.vendor} {update.processor:#x},"
            f" revision {update.revision:#x}{made}"
        )
    if module.kind == "envelope":
        print(_printable(read_envelope(module.content).explain()))
    elif module.kind != "unknown" and module.kind not in WITHOUT_FILES:
        archive = module.open_archive()
        _list_archive(archive)
        options.problems += archive.problems
    return _DONE


def _complain(problems: Sequence[Problem], what: str = "") -> None:
    for problem in problems:
        print(f"vmvisor-image: {what}{_printable(str(problem))}", file=sys.stderr)


def _index(options: argparse.Namespace) -> int:
    if options.with_data and options.cache is None:
        options.cache = True
    with _image(options) as image:
        layers, size = image.layers, image.size
    path = getattr(layers[0].source, "index_path", None) if layers else None
    if path is None:
        kind = layers[0].kind if layers else "not compressed"
        print(f"vmvisor-image: no index was written: {_printable(options.source)} is {kind}", file=sys.stderr)
        return _BAD_INPUT
    print(f"{_printable(path)}: {os.path.getsize(path)} bytes for {size} bytes of data")  # noqa: PTH202
    return _DONE


def _convert(options: argparse.Namespace) -> int:
    if not options.force and os.path.lexists(options.dest):  # before a pipe is waited for
        raise DestinationExists(f"{options.dest} is already there")
    with taking_pipes(options.source, _limits(options)) as options.source, _image(options) as image:
        done = convert(image, options.dest, level=options.level, threads=options.threads, overwrite=options.force)
        if find_table(image.disk).scheme != "none":  # of a disk that is cut, what is there was converted
            options.problems += image.partitions.problems
    resumed = f" (the first {done.resumed_at} from an earlier run)" if done.resumed_at else ""
    print(f"{_printable(options.dest)}: {done.size} bytes{resumed} in {done.compressed}")
    return _DONE


def _hexdump(options: argparse.Namespace) -> int:
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
    return _DONE


def _verify(options: argparse.Namespace) -> int:
    if options.manifest is not None and not options.force and os.path.lexists(options.manifest):
        raise DestinationExists(f"{options.manifest} is already there")
    if options.manifest is not None and not is_url(options.source):
        check_apart(Path(options.manifest), options.source)
    with _progress("verifying") as progress:
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
            print(_printable(line))
    return _DONE if report.is_sound else _BAD_INPUT


def _scan(options: argparse.Namespace) -> int:
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
            progress=stack.enter_context(_progress("scanning", "images")),
        )
        if options.out is None:
            bad = _print_rows(rows)
        else:
            tally = fleet.write(rows, options.out, overwrite=options.force)
            print(f"{_printable(options.out)}: {counted(tally.images, 'image')}, {tally.bad} of them bad")
            bad = tally.bad
    return _BAD_INPUT if bad else _DONE


def _completion(options: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError as error:
        raise UsageError(f"{error}: pip install 'vmvisor-image[cli]'") from error
    parser = _parser()
    [commands] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for command in commands.choices.values():
        for action in command._actions:
            if action.metavar in _COMPLETED:
                action.complete = getattr(shtab, _COMPLETED[action.metavar])
    print(shtab.complete(parser, options.shell))
    return _DONE


def _print_rows(rows: Iterator[Row]) -> int:
    """Print each row as it comes; gives the number of those that are not ok."""
    layout = "{:8}  {:>14}  {:16}  {:>10}  {:>6}  {:>8}  {:12}  {}"
    print(layout.format("State", "Bytes", "Version", "Partitions", "Files", "Problems", "Layers", "Path"))
    bad = 0
    for row in rows:
        bad += not row["ok"]
        version = "-".join(filter(None, (row["version"], row["build"])))
        cells = (row["size"], version, row["partitions"], row["files"], row["problems"], row["layers"], row["path"])
        shown = ["-" if cell in (None, "") else _printable(str(cell)) for cell in cells]
        print(layout.format("ok" if row["ok"] else "BAD", *shown), flush=True)
        if row["message"] is not None:
            print(f"{'':10}{_printable(row['message'])}", flush=True)
    return bad


@contextlib.contextmanager
def _cluster(address: str) -> Iterator[tuple[Executor, int]]:
    """What runs tasks on a dask cluster, and its number of threads."""
    try:
        from distributed import Client
        from distributed.comm.addressing import resolve_address
    except ImportError as error:
        raise UsageError(f"{error}: pip install 'vmvisor-image[dask]'") from error
    try:
        resolve_address(address)  # first: a client that was given what is no address complains when Python ends
        client = Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"no dask scheduler at {address!r}: {error}") from error
    with client, client.get_executor() as executor:
        yield executor, sum(client.nthreads().values()) or 1
