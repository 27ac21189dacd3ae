"""The entry point of the command line: its arguments, its exit status, and its errors."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NoReturn, TypeAlias

from vmvisor_image import __version__
from vmvisor_image.archives.formats import ARCHIVES
from vmvisor_image.base.destination import FULL
from vmvisor_image.base.limits import DEFAULT_LIMITS
from vmvisor_image.base.names import printable
from vmvisor_image.bzip2 import engine
from vmvisor_image.compressions.formats import COMPRESSIONS
from vmvisor_image.errors import (
    CorruptImage,
    DestinationFailed,
    DestinationFull,
    LimitExceeded,
    NameNotFound,
    UsageError,
)
from vmvisor_image.examine.signatures import Format
from vmvisor_image.faces.cli.advice import one_line
from vmvisor_image.faces.cli.examples import EXAMPLES
from vmvisor_image.faces.cli.layout import complain
from vmvisor_image.faces.cli.status import BAD_INPUT, DONE, MISUSE
from vmvisor_image.faces.cli.whole import complain_of_damage
from vmvisor_image.layers.containers import CD_SUFFIXES
from vmvisor_image.layers.virtual import VIRTUAL_DISKS

_INTERRUPTED = 130
_ALSO_A_PIPE = ", also a pipe, which is copied to a temporary file"
_SHELLS = ("bash", "zsh", "fish")
_COMPLETED = {
    **dict.fromkeys(("SRC", "SRC1", "SRC2", "DEST"), "FILE"),
    **dict.fromkeys(("FOLDER", "DIR", "[MODULE=]FOLDER"), "DIRECTORY"),
}
"""Kind of completion by shtab for an argument, by its name in the help."""
_HOMES: Final = {
    **dict.fromkeys(("cat", "extract", "hexdump", "sha256"), "paths"),
    **dict.fromkeys(("find", "ls", "tree"), "listing"),
    **dict.fromkeys(("browse", "mount"), "live"),
    "diff": "comparing",
    "index": "convert",
}
"""Modules of the commands that are not in one of their own name."""
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
        options.problems, options.apart, options.read, options.step, options.of_machine = [], [], None, None, False
        options.given = sys.argv[1:] if arguments is None else [*arguments]
        status: int = options.run(options)
        sys.stdout.flush()
        if options.problems:
            complain_of_damage(options.problems, () if status else options.apart)
            _print_step(options.step)
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
        return _fail(error, BAD_INPUT, options.step)
    except KeyboardInterrupt:
        if (left := getattr(options, "left_behind", None)) is not None:
            name, *given = options.given
            going_on = [option for option in options.to_go_on if option not in given]
            step = shlex.join(["vmvisor-image", name, *going_on, *given])
            left = left.format(getattr(options, "dest", None))
            said = f"interrupted; {left}; {getattr(options, 'going_on', 'go on')} with: {step}"
            print(f"vmvisor-image: {printable(said)}", file=sys.stderr)
        return _INTERRUPTED
    return status


def _fail(error: Exception, status: int, step: str | None = None) -> int:
    """Exit status, after printing an error, and the next step where the error does not name one."""
    print(f"vmvisor-image: {printable(one_line(error))}", file=sys.stderr)
    _print_step(None if "`vmvisor-image" in str(error) else step)
    return status


def _print_step(step: str | None) -> None:
    if step is not None:
        print(f"vmvisor-image: {printable(step)}", file=sys.stderr)


_Run = Callable[[argparse.Namespace], int]
"""A command, which takes the options and gives the exit status."""


def _command(name: str) -> _Run:
    """A command, whose module is imported when it runs: those of all others would cost each start 0.1 s."""
    module = f"vmvisor_image.faces.cli.{_HOMES.get(name, name)}"

    def run(options: argparse.Namespace) -> int:
        found: _Run = getattr(importlib.import_module(module), f"run_{name}")
        return found(options)

    run.__name__ = f"run_{name}"
    return run


_Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"
"""Collection to which commands are added."""


class _HelpFormatter(argparse.HelpFormatter):
    """A formatter that wraps descriptions and keeps the lines of examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("examples:"):
            return "".join(f"{indent}{line}\n" for line in text.splitlines())
        return super()._fill_text(text, width, indent)


def _did_you_mean(given: str, names: Sequence[str]) -> str:
    """End of a message that names what is most like the text given; empty where nothing is."""
    similar = NameNotFound(wanted=given, names=names).similar
    return f"; did you mean {similar[0]!r}?" if similar else ""


class _Parser(argparse.ArgumentParser):
    """A parser that reports errors in one line, like all errors, and takes options between arguments."""

    reads_images = False
    """Whether the command has the options of `_add_shared_options`."""
    _is_interleaving = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"formatter_class": _HelpFormatter, **options})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse a command's options first, as an optional argument would otherwise count as left out at an option."""
        if self._subparsers is not None or self._is_interleaving:
            return super().parse_known_args(args, namespace)
        self._is_interleaving = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_interleaving = False

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse all arguments; one that is not known is an error that names a similar option of the command."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            command: _Parser = getattr(found, "parser", self)
            options = [each for each in command._option_string_actions if each.startswith("--")]
            what = "unknown argument" if len(unknown) == 1 else "unknown arguments"
            command.error(f"{what}: {shlex.join(unknown)}{_did_you_mean(unknown[0].partition('=')[0], options)}")
        return found

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a value that is none of the choices, with the one most like it."""
        if isinstance(value, str) and action.choices is not None and value not in action.choices:
            choices = [*map(str, action.choices)]
            name = action.option_strings[0] if action.option_strings else str(action.metavar).lower()
            step = _did_you_mean(value, choices) or f"; choose from {', '.join(choices)}"
            raise argparse.ArgumentError(None, f"there is no {name} {value!r}{step}")
        super()._check_value(action, value)

    def error(self, message: str) -> NoReturn:
        also = " See" if message.endswith("?") else "; see"
        self.exit(MISUSE, f"vmvisor-image: {printable(message)}{also} {self.prog} --help\n")


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

    info = _add_command(commands, "info", "show layers, partitions and problems of an image")
    info.add_argument("--json", action="store_true", help="the whole report as JSON")
    _add_partition(info, "?")
    info.add_argument(
        "--fields",
        action="store_true",
        help="with PARTITION: also every field of its entry in the table and of its volume's headers, with its place",
    )
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
    _add_listing_commands(commands)
    _add_content_commands(commands)
    extract = commands.choices["extract"]
    pxe = _add_command(commands, "pxe", "export what a PXE server needs to boot the image or bundle")
    _add_pxe_options(pxe)
    _add_boot_commands(commands)
    _add_machines(commands)
    _add_archive(commands)
    for writing in (extract, pxe):
        writing.add_argument("dest", metavar="DEST", type=_destination, help="the folder to write to")
        writing.add_argument("--force", action="store_true", help="replace files that are already there")
        writing.set_defaults(left_behind="the files written to {} so far are whole")
    extract.set_defaults(to_go_on=["--resume"])
    pxe.set_defaults(to_go_on=["--force"])
    _add_raw_commands(commands)
    _add_verify(commands)
    _add_scan(commands)
    _add_live(commands)
    _add_completion(commands)
    for name, command in commands.choices.items():
        if command.reads_images:
            _add_shared_options(command, is_indexing=name == "index")
            if name == "machines":  # which shows all disks
                command.set_defaults(disk=None)
            else:
                _add_disk(command)
        command.set_defaults(parser=command)
        command.epilog = "\n".join(["examples:", *(f"  {example}" for example in EXAMPLES.get(name, ()))])
    return parser


def _add_command(commands: _Commands, name: str, text: str) -> argparse.ArgumentParser:
    """Parser of a command that opens an image, with the options that all such commands have."""
    added = commands.add_parser(name, help=text, description=f"{_capitalized(text)}.")
    if name not in ("diff", "machines"):  # what they read is something else
        _add_source(added, takes_pipes=name == "convert", takes_machines=True)
    added.reads_images = True
    added.set_defaults(run=_command(name))
    return added


def _add_shared_options(parser: argparse.ArgumentParser, *, is_indexing: bool) -> None:
    """Options of every command that opens an image; they come last in its help."""
    shared = parser.add_argument_group("how the image is read")
    _add_threads(shared)
    shared.add_argument(
        "--index",
        metavar="FILE",
        default="auto" if is_indexing else None,
        help="keep the places of a compressed image's blocks in FILE, so that the next run decodes less;"
        ' "auto": beside the image, otherwise in your cache folder' + (" (default: auto)" if is_indexing else ""),
    )
    shared.add_argument(
        "--cache",
        metavar="FOLDER",
        type=lambda text: True if text == "auto" else text,
        help='keep the decoded data in FOLDER, as zstd, for the next run; "auto": beside the image, otherwise in your'
        " cache folder",
    )
    _add_member(shared, ", or PARTITION/PATH of a disk, or of a machine's description, in a disk")
    _add_salvage(shared)
    _add_limits(shared)
    chain = parser.add_argument_group("of a virtual disk that rests on others")
    chain.add_argument(
        "--snapshot", metavar="NAME", help="read the state at a snapshot inside a qcow2 file, or of a machine"
    )
    parent = chain.add_mutually_exclusive_group()
    parent.add_argument("--parent", metavar="FILE", help="the disk that it rests on, instead of the one that it names")
    parent.add_argument(
        "--no-parent", action="store_true", help="read it alone: what it does not hold is shown as zeros, and status 1"
    )
    chain.add_argument(
        "--allow-cid-mismatch",
        action="store_true",
        help="read it even if the disk below has changed since, and status 1",
    )


def _add_disk(parser: argparse.ArgumentParser) -> None:
    machine = parser.add_argument_group("of a virtual machine (SRC is a VMX, an OVF or OVA, or libvirt's XML)")
    machine.add_argument(
        "--disk", metavar="NAME", help="which of its disks, such as scsi0:0, where it has several; machines lists them"
    )


def _add_salvage(parser: argparse._ActionsContainer) -> None:
    text = "read what is behind damage in bzip2 data too, so that only what is in the damaged blocks is lost"
    parser.add_argument("--salvage", action="store_true", help=text)


def _add_partition(parser: argparse.ArgumentParser, nargs: str | None = None, *, otherwise: str = "") -> None:
    text = f"number or label of the partition, or @ and its first byte{otherwise}"
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
    archive.add_argument("--json", action="store_true", help="the list as JSON")
    archive.set_defaults(run=_command("archive"))


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


def _add_source(parser: argparse.ArgumentParser, *, takes_pipes: bool, takes_machines: bool = False) -> None:
    what = "the disk image, or the description of a machine with that disk" if takes_machines else "the disk image"
    text = f"{what}: a path or a URL; - for standard input{_ALSO_A_PIPE if takes_pipes else ''}"
    parser.add_argument("source", metavar="SRC", type=_source, help=text)


def _add_threads(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--threads", type=int, metavar="N", help="threads to decode with (default: cores)")


def _destination(text: str) -> str:
    """Path as it is given; not "-", which stands for standard output with other programs."""
    if text == "-":
        raise argparse.ArgumentTypeError("standard output can't be written to: name a file (./- is one of that name)")
    return text


def _source(text: str) -> str:
    """Path or URL as it is given; the path of standard input for "-"."""
    return "/dev/stdin" if text == "-" else text


def _add_member(parser: argparse._ActionsContainer, more: str = "") -> None:
    text = f"which file of a CD or archive is the disk, where there are several{more}"
    parser.add_argument("--member", metavar="PATH", help=text)


def _add_limits(parser: argparse._ActionsContainer) -> None:
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


def _add_listing_commands(commands: _Commands) -> None:
    ls = _add_command(commands, "ls", "list the files of the image or a partition, or what a directory holds")
    _add_target(ls, "without a path, all files; with one, also 5/, what that directory holds")
    ls.add_argument("-l", "--long", action="store_true", help="with sizes and times, as without a path")
    ls.add_argument(
        "-R", "--recursive", action="store_true", help="also what is in directories below, as without a path"
    )
    _add_json(ls)
    _add_device_option(ls)
    tree = _add_command(commands, "tree", "show directories and files as a tree")
    _add_target(tree, "default: all partitions")
    _add_json(tree)
    _add_device_option(tree)
    find = _add_command(commands, "find", "print the paths of the files that match a pattern")
    find.add_argument(
        "pattern",
        metavar="GLOB",
        help="pattern in quotes: of a name at any depth, such as '*.tgz'; with a slash, of PARTITION/PATH, such as"
        " 'Hypervisor1/**/*.cfg', where ** is any number of directories",
    )
    find.add_argument("-l", "--long", action="store_true", help="with sizes and times")
    find.description = f"{find.description} Status 1: nothing matches."
    _add_json(find)
    _add_device_option(find)
    diff = _add_command(
        commands, "diff", "show what differs between two images: partitions, files by content, versions"
    )
    diff.add_argument("source", metavar="SRC1", type=_source, help="a disk image: a path or a URL")
    diff.add_argument("second", metavar="SRC2", type=_source, help="the disk image to compare it with")
    diff.description = f"{diff.description} Status 0: no difference; 1: some, or damage hides whether there is one."
    _add_json(diff)


def _add_content_commands(commands: _Commands) -> None:
    cat = _add_command(commands, "cat", "write a file, or the bytes of a partition, to standard output")
    _add_target(cat, nargs=None)
    text = "path of the file, where only the partition stands before it: PARTITION PATH is PARTITION/PATH"
    cat.add_argument("path", metavar="PATH", nargs="?", help=text)
    extract = _add_command(commands, "extract", "extract the files of partitions, or some, to a folder")
    folders = "those of several partitions get a folder each, named by its number; default: the files of all partitions"
    _add_targets(extract, folders)
    resuming = "go on with an interrupted extraction: files that are there with the right content stay"
    extract.add_argument("--resume", action="store_true", help=resuming)
    sha256 = _add_command(commands, "sha256", "print the SHA-256 of files, in the format that sha256sum -c checks")
    _add_targets(sha256, "default: all files; the paths are those that extract writes for the same arguments")
    _add_json(sha256)
    hexdump = _add_command(commands, "hexdump", "show bytes of the disk, a partition or a file")
    _add_target(hexdump, "default: the disk")
    hexdump.add_argument("-s", "--offset", type=_number, default=0, help="first byte (default: 0; 0x… is hexadecimal)")
    hexdump.add_argument("-n", "--length", type=_number, default=512, help="number of bytes (default: 512)")
    hexdump.add_argument("--json", action="store_true", help="the same as JSON, without a star for equal lines")
    _add_device_option(cat, extract, sha256, hexdump)


_A_PARTITION: Final = "number or label of a partition, or @ and its first byte, as info --search prints it"


def _add_target(parser: argparse.ArgumentParser, more: str = "", nargs: str | None = "?") -> None:
    text = f"{_A_PARTITION}; behind a slash, a path in it" + (f" ({more})" if more else "")
    parser.add_argument("target", metavar="PARTITION/PATH", nargs=nargs, help=text)


def _add_targets(parser: argparse.ArgumentParser, more: str) -> None:
    text = (
        f"{_A_PARTITION}; behind a slash, a path in it, or a pattern in quotes, where ** is any number"
        f" of directories: what find calls '*.tgz' is '**/*.tgz' here ({more})"
    )
    parser.add_argument("targets", metavar="PARTITION/GLOB", nargs="*", help=text)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the same as JSON")


def _add_raw_commands(commands: _Commands) -> None:
    converting = _add_command(
        commands, "convert", "write the decoded image as seekable zstd, quick to read again, or as a raw disk"
    )
    converting.add_argument(
        "dest",
        metavar="DEST",
        type=_destination,
        help="the file to write: .raw, .img or .dd for a raw disk, .zst for seekable zstd",
    )
    converting.add_argument("--level", type=int, default=3, help="zstd's compression level (default: %(default)s)")
    converting.add_argument("--force", action="store_true", help="replace the file when it is there")
    converting.set_defaults(left_behind="what was converted so far is kept beside {}", to_go_on=[])
    indexing = _add_command(
        commands, "index", "find the blocks of a compressed image, and write their places to an index file"
    )
    indexing.set_defaults(left_behind="the blocks found so far are in the index", to_go_on=[])
    indexing.add_argument("--with-data", action="store_true", help="also keep the decoded data, as --cache auto does")


def _add_boot_commands(commands: _Commands) -> None:
    system = _add_command(commands, "system", "show what an image boots: version, boot banks, modules in load order")
    system.add_argument("--json", action="store_true", help="the same as JSON, with the hash of each module")
    system.add_argument("--files", action="store_true", help="list the files of all modules, and where each is from")
    _add_bank(system)
    host = _add_command(commands, "host", "show what a host keeps of itself: network, accounts, machines, certificates")
    host.add_argument("--json", action="store_true", help="the same as JSON, with every setting")
    host.add_argument("--logs", action="store_true", help="print the lines of all its logs instead, by time")
    host.add_argument("--hashes", action="store_true", help="also show the hashes of passwords, not just their types")
    key = "file with the key of an encrypted configuration: 32 bytes, or as many in hexadecimal"
    host.add_argument("--key-file", metavar="FILE", help=key)
    _add_bank(host)
    provenance = _add_command(commands, "provenance", "say of each module which package has it, and who signed it")
    provenance.add_argument("--json", action="store_true", help="the same as JSON")
    _add_certificate(provenance)
    provenance.add_argument("--files", action="store_true", help="also list the files that no package has")
    _add_bank(provenance)
    module = _add_command(commands, "module", "show the kind and content of a boot module, of an image or by itself")
    _add_partition(module, "?")
    module.add_argument("path", metavar="PATH", nargs="?", help="path of the module, from the root of the partition")
    inner = (
        "a file in the module, to write to standard output; where SRC is a module file itself, the only one after SRC"
    )
    module.add_argument("inner", metavar="FILE", nargs="?", help=inner)


def _add_bank(parser: argparse.ArgumentParser) -> None:
    text = 'number, label or place (@0x404000) of a boot bank, or "active" for the one that the boot loader would start'
    parser.add_argument("--bank", metavar="BANK", help=text)


def _add_machines(commands: _Commands) -> None:
    text = "list the virtual machines of a datastore, a folder or an archive: disks, snapshots, and what is missing"
    machines = _add_command(commands, "machines", text)
    source = "a disk with datastores, a folder, an archive, or the description of a machine: a path or a URL"
    machines.add_argument("source", metavar="SRC", type=_source, help=source)
    checking = "check the files of an OVF or OVA against its manifest, which reads all of them"
    machines.add_argument("--checksums", action="store_true", help=checking)
    machines.description = f"{machines.description} Status 1: something is missing or damaged."
    _add_json(machines)
    device = "another disk of a datastore that spans several, of which SRC is one; may be given more than once"
    machines.add_argument("--device", metavar="SRC", action="append", default=[], help=device)


def _add_pxe_options(pxe: argparse.ArgumentParser) -> None:
    pxe.add_argument(
        "--label", help="label of the boot entry (default: product and version, such as esxi-6.7.0; 3i for ESX 3i 3.5)"
    )
    pxe.add_argument("--install", action="store_true", help="export the installer of a CD instead of the system")
    pxe.add_argument(
        "--profile",
        metavar="NAME",
        help="image profile of SRC, an offline bundle or depot (default: the only one; an error lists them)",
    )
    pxe.add_argument(
        "--add",
        metavar="FILE",
        action="append",
        default=[],
        help="add the packages of FILE, a VIB or bundle, to the image profile or to an installer CD of ESXi 5 or later,"
        " instead of older ones of the same name; may be given more than once",
    )
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


def _add_certificate(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--certificate",
        metavar="FILE",
        action="append",
        default=[],
        help="a file or folder of certificates that you trust; may be given more than once. Needs the extra crypto",
    )


def _add_scan(commands: _Commands) -> None:
    text = "one row for each of many images, each as soon as it is done"
    scan = commands.add_parser(
        "scan",
        help=text,
        description=f"Show or write {text}. Status 1: one of them has an error or a problem; 2: none of them exists.",
    )
    scan.add_argument(
        "sources",
        metavar="SRC",
        nargs="+",
        type=_source,
        help="an image, a folder (every image in it and below it), or a pattern in quotes, such as 'dir/**/*.bz2';"
        f" - for standard input{_ALSO_A_PIPE}",
    )
    scan.add_argument(
        "--out",
        metavar="DEST",
        type=_destination,
        help="write the rows to DEST: .jsonl, .ndjson, or .parquet (default: a table)",
    )
    scan.add_argument("--json", action="store_true", help="each row as JSON on a line of its own")
    scan.add_argument("--force", action="store_true", help="replace DEST when it is there")
    scan.add_argument("--detail", action="store_true", help="with the whole report of each image, as JSON")
    scan.add_argument(
        "--provenance",
        action="store_true",
        help="also compare every module with the package that has it; one that is altered makes the image bad",
    )
    _add_certificate(scan)
    host = "also read the saved configuration of each host: its name, accounts, machines and datastores"
    scan.add_argument("--host", action="store_true", help=host)
    scan.add_argument("--workers", type=int, metavar="N", help="images to read at once (default: cores)")
    scan.add_argument("--scheduler", metavar="URL", help="address of a dask scheduler, such as tcp://host:8786")
    shared = scan.add_argument_group("how each image is read")
    shared.add_argument("--threads", type=int, metavar="N", default=1, help="threads for each image (default: 1)")
    _add_salvage(shared)
    _add_limits(shared)
    scan.set_defaults(run=_command("scan"), left_behind="the rows shown are whole", to_go_on=[], going_on="begin again")


def _add_live(commands: _Commands) -> None:
    text = "show an image as a folder, read-only, until it is unmounted: each partition is a folder of its files"
    mounting = _add_command(commands, "mount", text)
    mounting.add_argument("folder", metavar="DIR", help="the folder to mount it on, which must be empty")
    mounting.add_argument(
        "--foreground", dest="background", action="store_false", help="go on until Ctrl-C or an unmount (the default)"
    )
    mounting.add_argument("--background", action="store_true", help="return at once, and go on until an unmount")
    mounting.set_defaults(background=False)
    text = "browse an image in the terminal: partitions, files, bytes with their fields, explanations"
    _add_command(commands, "browse", text)


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
        type=_destination,
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
    _add_certificate(parser)
    shared = parser.add_argument_group("how the image is read")
    _add_threads(shared)
    _add_member(shared)
    _add_salvage(shared)
    _add_limits(shared)
    parser.set_defaults(
        run=_command("verify"), left_behind="nothing is left behind", to_go_on=[], going_on="begin again"
    )


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
