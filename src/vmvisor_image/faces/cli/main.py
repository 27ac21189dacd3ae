"""The entry point of the command line: its arguments, its exit status, and its errors."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, TypeAlias

from vmvisor_image import __version__
from vmvisor_image.archives.formats import ARCHIVES
from vmvisor_image.base.destination import FULL
from vmvisor_image.base.limits import DEFAULT_LIMITS
from vmvisor_image.base.names import printable
from vmvisor_image.bzip2 import engine
from vmvisor_image.compressions.formats import COMPRESSIONS
from vmvisor_image.errors import CorruptImage, DestinationFailed, DestinationFull, LimitExceeded, UsageError
from vmvisor_image.examine.signatures import Format
from vmvisor_image.faces.cli.commands import (
    BAD_INPUT,
    DONE,
    MISUSE,
    run_archive,
    run_cat,
    run_convert,
    run_extract,
    run_hexdump,
    run_index,
    run_info,
    run_ls,
    run_module,
    run_pxe,
    run_scan,
    run_system,
    run_verify,
)
from vmvisor_image.faces.cli.show import complain
from vmvisor_image.layers.containers import CD_SUFFIXES
from vmvisor_image.layers.virtual import VIRTUAL_DISKS

_INTERRUPTED = 130
_ALSO_A_PIPE = ", also a pipe, which is copied to a temporary file"
_SHELLS = ("bash", "zsh", "fish")
_COMPLETED = {"SRC": "FILE", "DEST": "FILE", "FOLDER": "DIRECTORY", "[MODULE=]FOLDER": "DIRECTORY"}
"""Kind of completion by shtab for an argument, by its name in the help."""
_MISUSED = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status of running one command; errors are one line on standard error."""
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
            complain([*dict.fromkeys(options.problems)], "what was shown or written may be incomplete: ")
            status = status or BAD_INPUT
    except DestinationFailed as error:  # not misuse: the disk is full, or the directory is gone
        return _fail(error, BAD_INPUT)
    except (UsageError, *_MISUSED) as error:
        _fail(error, MISUSE)
        complain([*dict.fromkeys(options.problems)], "the image is damaged: ")
        return BAD_INPUT if options.problems else MISUSE
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (CorruptImage, LimitExceeded, OSError) as error:
        if isinstance(error, OSError) and error.errno in FULL and error.filename is None:  # all else is named
            error = DestinationFull("standard output: there is no room left")
        return _fail(error, BAD_INPUT)
    except KeyboardInterrupt:
        return _INTERRUPTED
    return status


def _fail(error: Exception, status: int) -> int:
    print(f"vmvisor-image: {printable(str(error))}", file=sys.stderr)
    return status


_Run = Callable[[argparse.Namespace], int]
"""A command, which takes the options and gives the exit status."""
_Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"
"""Collection to which commands are added."""


class _Parser(argparse.ArgumentParser):
    """A parser that reports errors in one line, like all errors, and takes options between arguments."""

    _is_interleaving = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse a command's options first, as an optional argument would otherwise count as left out at an option."""
        if self._subparsers is not None or self._is_interleaving:
            return super().parse_known_args(args, namespace)
        self._is_interleaving = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_interleaving = False

    def error(self, message: str) -> NoReturn:
        self.exit(MISUSE, f"vmvisor-image: {printable(message)}; see {self.prog} --help\n")


def _suffixes(formats: Iterable[Format]) -> str:
    """Usual suffixes of formats, one for each, as text."""
    return ", ".join(each.SUFFIXES[0] for each in formats if each.SUFFIXES)


def _what_is_opened() -> str:
    """Forms of a disk image, by their usual suffixes."""
    archives = _suffixes(each for each in ARCHIVES if each.HOLDS_DISKS)
    return (
        f"bare (.dd), compressed (.dd{_suffixes(COMPRESSIONS)}), on an installer CD ({', '.join(CD_SUFFIXES)}), in an"
        f" archive ({archives}), or as a virtual disk ({_suffixes(VIRTUAL_DISKS)})"
    )


def _archive_names() -> str:
    """Names of the formats of archives, as text."""
    *names, last = [each.NAME for each in ARCHIVES]
    return f"{', '.join(names)} or {last}"


class _ShowVersion(argparse.Action):
    """Prints the version and which engine decodes bzip2, which is only looked for when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        try:
            print(f"{parser.prog} {__version__} (bzip2: {engine()})")
        except UsageError as error:
            parser.error(str(error))
        parser.exit(DONE)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="vmvisor-image",
        description=f"Take hypervisor disk images apart: {_what_is_opened()}.",
        epilog="Exit status: 0 done, 1 bad input, 2 misuse.",
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show program's version number and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    info = _add_command(commands, "info", run_info, "show layers, partitions and problems of an image")
    info.add_argument("--json", action="store_true", help="the whole report as JSON")
    _add_partition(info, "?")
    info.add_argument(
        "--checksums",
        action="store_true",
        help="check the disk image found on a CD against the checksum file on it, such as imagedd.md5",
    )
    info.add_argument(
        "--search",
        action="store_true",
        help="search the disk for volumes that its partition table does not have, and show each with its evidence",
    )
    info.add_argument("--explain", action="store_true", help="say what each partition is for, and why")
    ls = _add_command(commands, "ls", run_ls, "list the files of one partition, or of all")
    _add_partition(ls, "?")
    cat = _add_command(commands, "cat", run_cat, "write a file of a partition to standard output")
    _add_partition(cat)
    cat.add_argument("path", metavar="PATH", help="path of the file, from the root of the partition")
    extract = _add_command(commands, "extract", run_extract, "extract every file of a partition to a folder")
    _add_partition(extract)
    resuming = "go on with an interrupted extraction: files that are there with the right content stay"
    extract.add_argument("--resume", action="store_true", help=resuming)
    _add_device_option(ls, cat, extract)
    pxe = _add_command(commands, "pxe", run_pxe, "export what a PXE server needs to boot the image")
    _add_pxe_options(pxe)
    _add_boot_commands(commands)
    _add_archive(commands)
    for writing in (extract, pxe):
        writing.add_argument("dest", metavar="DEST", help="the folder to write to")
        writing.add_argument("--force", action="store_true", help="replace files that are already there")
    _add_raw_commands(commands)
    _add_verify(commands)
    _add_scan(commands)
    _add_completion(commands)
    return parser


def _add_command(commands: _Commands, name: str, run: _Run, text: str) -> argparse.ArgumentParser:
    """Parser of a command that opens an image, with the options that all such commands have."""
    added = commands.add_parser(name, help=text, description=f"{_capitalized(text)}.")
    _add_source(added, takes_pipes=name == "convert")
    added.add_argument(
        "--index",
        metavar="FILE",
        default="auto" if name == "index" else None,
        help="keep the places of a compressed image's blocks in FILE, so that the next run decodes less;"
        ' "auto": beside the image, otherwise in your cache folder' + (" (default: auto)" if name == "index" else ""),
    )
    added.add_argument(
        "--cache",
        metavar="FOLDER",
        type=lambda text: True if text == "auto" else text,
        help='keep the decoded data in FOLDER, as zstd, for the next run; "auto": beside the image, otherwise in your'
        " cache folder",
    )
    _add_member(added)
    added.add_argument(
        "--salvage",
        action="store_true",
        help="read past damaged bzip2 data: what follows is placed by counting back from the disk's end",
    )
    _add_limits(added)
    added.set_defaults(run=run)
    return added


def _add_partition(parser: argparse.ArgumentParser, nargs: str | None = None, *, otherwise: str = "") -> None:
    text = f"number or label of the partition{otherwise}"
    parser.add_argument("partition", metavar="PARTITION", nargs=nargs, help=text)


def _capitalized(text: str) -> str:
    return text[0].upper() + text[1:]


def _add_completion(commands: _Commands) -> None:
    text = "print a script that completes this command in a shell"
    description = f"{_capitalized(text)}: source <(vmvisor-image completion bash)."
    completion = commands.add_parser("completion", help=text, description=description)
    completion.add_argument("shell", metavar="SHELL", choices=_SHELLS, help=f"one of {', '.join(_SHELLS)}")
    completion.set_defaults(run=_completion)


def _add_archive(commands: _Commands) -> None:
    text = "list an archive, or write a file of it to standard output: a VIB, a module, a bundle, a CD"
    archive = commands.add_parser("archive", help=text, description=f"{_capitalized(text)}.")
    archive.add_argument(
        "source",
        metavar="SRC",
        type=_source,
        help=f"path or URL of a {_archive_names()}; - for standard input{_ALSO_A_PIPE}",
    )
    archive.add_argument(
        "path",
        metavar="FILE",
        nargs="*",
        help="path of a file in the archive, to write out; each further FILE lies in the one before",
    )
    archive.add_argument(
        "--list", action="store_true", help="list the last FILE as an archive instead of writing it out"
    )
    archive.set_defaults(run=run_archive)


def _add_device_option(*parsers: argparse.ArgumentParser) -> None:
    for parser in parsers:
        parser.add_argument(
            "--device",
            metavar="SRC",
            action="append",
            default=[],
            help="another disk of a VMFS datastore that spans several (SRC is one of them); PARTITION is then the"
            " datastore's label; may be given more than once",
        )


def _add_source(parser: argparse.ArgumentParser, *, takes_pipes: bool) -> None:
    text = f"the disk image: a path or a URL; - for standard input{_ALSO_A_PIPE if takes_pipes else ''}"
    parser.add_argument("source", metavar="SRC", type=_source, help=text)
    parser.add_argument("--threads", type=int, metavar="N", help="threads to decode with (default: cores)")


def _source(text: str) -> str:
    """Path or URL as it is given; the path of standard input for "-"."""
    return "/dev/stdin" if text == "-" else text


def _add_member(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--member", metavar="PATH", help="which file of a CD or archive is the disk, where there are several"
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-seconds",
        type=float,
        metavar="N",
        help="give up on an image after so many seconds (default: no limit)",
    )
    parser.add_argument(
        "--max-decoded",
        type=_number,
        metavar="BYTES",
        default=DEFAULT_LIMITS.decoded_bytes,
        help="give up on an image when more than this would have to be decoded (default: 16 TiB)",
    )


def _add_raw_commands(commands: _Commands) -> None:
    converting = _add_command(
        commands, "convert", run_convert, "write the decoded image as seekable zstd, which is quick to read again"
    )
    converting.add_argument("dest", metavar="DEST", help="the file to write (.zst)")
    converting.add_argument("--level", type=int, default=3, help="zstd's compression level (default: %(default)s)")
    converting.add_argument("--force", action="store_true", help="replace the file when it is there")
    indexing = _add_command(
        commands, "index", run_index, "find the blocks of a compressed image, and write their places to an index file"
    )
    indexing.add_argument("--with-data", action="store_true", help="also keep the decoded data, as --cache auto does")
    hexdump = _add_command(commands, "hexdump", run_hexdump, "show bytes of the disk or of a partition")
    _add_partition(hexdump, "?", otherwise=" to read from (default: the disk)")
    hexdump.add_argument("-s", "--offset", type=_number, default=0, help="first byte (default: 0; 0x… is hexadecimal)")
    hexdump.add_argument("-n", "--length", type=_number, default=512, help="number of bytes (default: 512)")


def _add_boot_commands(commands: _Commands) -> None:
    system = _add_command(
        commands, "system", run_system, "show what an image boots: version, boot banks, modules in load order"
    )
    system.add_argument("--json", action="store_true", help="the same as JSON, with the hash of each module")
    system.add_argument("--files", action="store_true", help="list the files of all modules, and where each is from")
    system.add_argument(
        "--bank",
        metavar="BANK",
        help='number or label of a boot bank, or "active" for the one that the boot loader would start',
    )
    module = _add_command(
        commands, "module", run_module, "show the kind and content of a boot module, of an image or by itself"
    )
    _add_partition(module, "?")
    module.add_argument("path", metavar="PATH", nargs="?", help="path of the module, from the root of the partition")
    inner = (
        "a file in the module, to write to standard output; where SRC is a module file itself, the only one after SRC"
    )
    module.add_argument("inner", metavar="FILE", nargs="?", help=inner)


def _add_pxe_options(pxe: argparse.ArgumentParser) -> None:
    pxe.add_argument(
        "--label", help="label of the boot entry (default: product and version, such as esxi-6.7.0; 3i for ESX 3i 3.5)"
    )
    pxe.add_argument("--install", action="store_true", help="export the installer of a CD instead of the system")
    pxe.add_argument(
        "--bank",
        metavar="BANK",
        help='number or label of the boot bank, or "active" for the one that the boot loader would start (default: the'
        " active one of a GPT disk, the first one of any other)",
    )
    pxe.add_argument("--prefix", default="", help="folder below DEST for everything but PXELINUX's configuration")
    pxe.add_argument(
        "--kernel-option",
        metavar="OPTION",
        action="append",
        default=[],
        help="an option for the hypervisor's kernel, such as ks=http://…; may be given more than once",
    )
    pxe.add_argument("--ipxe", action="store_true", help="also write a script for iPXE")
    pxe.add_argument(
        "--overlay",
        metavar="[MODULE=]FOLDER",
        action="append",
        default=[],
        help="make a module of FOLDER and export it instead of MODULE (default: oem.tgz); may be given more than once",
    )
    pxe.add_argument(
        "--overlay-keep",
        action="store_true",
        help="with --overlay: keep the files of the replaced module that FOLDER does not have",
    )


def _add_scan(commands: _Commands) -> None:
    text = "one row for each of many images, each as soon as it is done"
    scan = commands.add_parser(
        "scan", help=text, description=f"Show or write {text}. Status 1: one of them has an error or a problem."
    )
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
    scan.set_defaults(run=run_scan)


def _add_verify(commands: _Commands) -> None:
    text = "read all of an image once, and report every check of it, with the hash of every file"
    parser = commands.add_parser(
        "verify", help=text, description=f"{_capitalized(text)}. Status 1: something is wrong."
    )
    _add_source(parser, takes_pipes=True)
    parser.add_argument("--json", action="store_true", help="the whole report as JSON")
    parser.add_argument(
        "--manifest",
        metavar="DEST",
        help="write the SHA-256 of each file to DEST: `sha256sum -c` checks by it what was extracted, each partition to"
        " a folder named by its number",
    )
    parser.add_argument("--force", action="store_true", help="replace DEST when it is there")
    parser.add_argument(
        "--hash",
        metavar="NAME",
        action="append",
        default=[],
        choices=("sha1", "md5"),
        help="also hash with this algorithm: sha1 or md5; may be given more than once",
    )
    _add_member(parser)
    _add_limits(parser)
    parser.set_defaults(run=run_verify)


def _number(text: str) -> int:
    with contextlib.suppress(ValueError):
        if (value := int(text, 0)) >= 0:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes, such as 512 or 0x200")


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
    return DONE
