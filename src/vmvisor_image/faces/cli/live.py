"""Commands that go on until they are ended: an image mounted on a folder, or browsed in the terminal."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from vmvisor_image.base.names import printable
from vmvisor_image.errors import DependencyMissing, InvalidArgument, UsageError
from vmvisor_image.faces.cli.opening import image_of
from vmvisor_image.faces.cli.status import DONE

_FUSE = Path("/dev/fuse")


def run_mount(options: argparse.Namespace) -> int:
    """Mount an image on an empty folder until it is unmounted."""
    folder = _mount_point(options.folder)
    try:
        from vmvisor_image.fsspec.file_system import VmvisorFileSystem
        from vmvisor_image.fsspec.mount import mount
    except ImportError as error:
        raise DependencyMissing(
            f"mounting needs mfusepy and fsspec ({error}): pip install 'vmvisor-image[mount]'"
        ) from error
    except OSError as error:  # mfusepy's, where it finds no library
        raise DependencyMissing(
            "mounting needs the library libfuse, which is not here; its package is libfuse2 (Debian),"
            " libfuse2t64 (Ubuntu), fuse-libs (Fedora), or macFUSE"
        ) from error
    if sys.platform == "linux" and not _FUSE.exists():
        raise UsageError(
            f"there is no {_FUSE}, without which nothing can be mounted: `modprobe fuse` as root makes it; a container"
            " is given it with --device /dev/fuse --cap-add SYS_ADMIN"
        )

    def say(text: str) -> None:
        print(f"vmvisor-image: {printable(text)}", file=sys.stderr, flush=True)

    def begun() -> None:
        how = "" if options.background else "Ctrl-C, or "
        print(
            f"{printable(options.source)} is mounted on {printable(options.folder)}, read-only; to unmount it: {how}"
            f"fusermount -u {printable(options.folder)}",
            flush=True,
        )

    with image_of(options, options.source, None) as image:
        fs = VmvisorFileSystem(image)
        if options.background:
            begun()  # later its standard output is gone
        try:
            mount(fs, folder, background=options.background, begun=begun, failed=say)
        except RuntimeError as error:
            raise UsageError(f"{options.folder}: nothing can be mounted here; FUSE has said why above") from error
        options.problems += [*image.known_problems, *fs.problems]
    return DONE


def run_browse(options: argparse.Namespace) -> int:
    """Browse an image in the terminal until q is pressed."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("browse needs a terminal to draw on; info, ls and hexdump print the same to anywhere")
    try:
        from vmvisor_image.faces.browse import Browser
    except ImportError as error:
        raise DependencyMissing(f"browsing needs more ({error}): pip install 'vmvisor-image[browse]'") from error
    with image_of(options, options.source, None) as image:
        Browser(image, options.source).run()
        options.problems += image.known_problems
    return DONE


def _mount_point(given: str) -> Path:
    """Empty directory to mount on, as an absolute path."""
    folder = Path(given).absolute()
    if not folder.exists():
        raise FileNotFoundError(f"{given}: there is no such folder; make an empty one: mkdir {given}")
    if not folder.is_dir():
        raise NotADirectoryError(f"{given} is not a folder; an image is mounted on an empty folder")
    if os.path.ismount(folder):  # Path.is_mount is not there on Windows
        raise InvalidArgument(f"{given}: something is mounted here already; to unmount it: fusermount -u {given}")
    if any(folder.iterdir()):
        raise InvalidArgument(f"{given} is not empty, and a mount would hide what is in it: give an empty folder")
    return folder
