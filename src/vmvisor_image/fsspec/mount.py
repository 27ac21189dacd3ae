"""An image mounted on a folder, read-only, by FUSE: each partition is a folder of its files.

The operations of `fsspec.fuse` are not used: they give zeros for what is damaged, show files as writable, and don't
mount read-only. Needs mfusepy, and libfuse of the operating system; importing this module fails without them.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import stat
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from mfusepy import FUSE, FuseOSError, Operations

from vmvisor_image.disk.partition import Partition
from vmvisor_image.errors import NotAFile, NotAFileSystem, VmvisorImageError
from vmvisor_image.files.file import Directory, File
from vmvisor_image.fsspec.file_system import VmvisorFileSystem

_SECOND = 10**9
_P = ParamSpec("_P")
_R = TypeVar("_R")


def mount(
    fs: VmvisorFileSystem,
    folder: str | os.PathLike[str],
    *,
    background: bool = False,
    begun: Callable[[], None],
    failed: Callable[[str], None],
) -> None:
    """Mount an image until it is unmounted, or until Ctrl-C.

    Args:
        fs: The image.
        folder: Empty directory to mount it on.
        background: Whether a child of this process goes on, and this one ends.
        begun: Called when the files can be read.
        failed: Called with what could not be read, and why.

    Raises:
        RuntimeError: FUSE can't mount it there; it has said why on standard error.
    """
    operations = _Operations(fs, begun, failed)
    FUSE(operations, os.fspath(folder), foreground=not background, ro=True, fsname="vmvisor-image", subtype="vmvisor")


def _owner(call: str) -> int:
    """Number of this user or group by a function of the system; 0 on Windows, which has none."""
    return int(getattr(os, call, int)())


def _answering(
    method: Callable[Concatenate[_Operations, str, _P], _R],
) -> Callable[Concatenate[_Operations, str, _P], _R]:
    """The same operation on a path, with an error of this library as the number that the kernel knows."""

    @functools.wraps(method)
    def answer(self: _Operations, path: str, /, *args: _P.args, **names: _P.kwargs) -> _R:
        try:
            return method(self, path, *args, **names)
        except NotAFile as error:
            raise FuseOSError(errno.EISDIR) from error
        except (NotADirectoryError, NotAFileSystem) as error:
            raise FuseOSError(errno.ENOTDIR) from error
        except FileNotFoundError as error:
            raise FuseOSError(errno.ENOENT) from error
        except VmvisorImageError as error:
            self._failed(f"{path}: {error}")
            raise FuseOSError(errno.EIO) from error

    return answer


class _Operations(Operations):  # type: ignore[misc]  # mfusepy has no types
    """Answers to the kernel, which refuses itself whatever would write, as the mount is read-only."""

    use_ns = True  # times are whole nanoseconds

    def __init__(self, fs: VmvisorFileSystem, begun: Callable[[], None], failed: Callable[[str], None]) -> None:
        self._fs = fs
        self._begun = begun
        self._failed = failed
        self._open: dict[int, File | Partition] = {}
        self._handles = itertools.count()

    def init(self, path: str) -> None:  # noqa: ARG002  # FUSE's signature
        self._begun()

    @_answering
    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:  # noqa: ARG002
        path = path.strip("/")
        found = self._fs._find(path) if path else None
        is_folder = found is None or isinstance(found, Directory)
        timestamp = found.timestamp if isinstance(found, File | Directory) else None
        time = int((timestamp or 0) * _SECOND)
        size = found.size if isinstance(found, File | Partition) else 0
        return {
            "st_mode": stat.S_IFDIR | 0o555 if is_folder else stat.S_IFREG | 0o444,
            "st_nlink": 2 if is_folder else 1,
            "st_size": size,
            "st_blocks": -(-size // 512),
            "st_uid": _owner("getuid"),
            "st_gid": _owner("getgid"),
            "st_mtime": time,
            "st_ctime": time,
            "st_atime": time,
        }

    @_answering
    def readdir(self, path: str, fh: int) -> list[str]:  # noqa: ARG002
        names = [name.rpartition("/")[2] for name in self._fs.ls(path, detail=False)]
        return [".", "..", *(name for name in names if self._can_be_told(path, name))]

    @_answering
    def open(self, path: str, flags: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise FuseOSError(errno.EROFS)
        handle = next(self._handles)
        self._open[handle] = self._fs._find_file(path)
        return handle

    @_answering
    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:  # noqa: ARG002
        """All bytes that were asked for, up to the end, or an error: FUSE puts zeros in the place of missing ones."""
        file = self._open[fh]
        length = min(size, file.size - offset)
        return file.read_at(offset, length) if length > 0 else b""

    def release(self, path: str, fh: int) -> int:  # noqa: ARG002
        self._open.pop(fh, None)
        return 0

    def statfs(self, path: str) -> dict[str, int]:  # noqa: ARG002
        return {"f_bsize": 512, "f_frsize": 512, "f_namemax": 255}

    def _can_be_told(self, path: str, name: str) -> bool:
        try:
            name.encode()
        except UnicodeEncodeError:  # half of a surrogate pair; one of them would fail the whole directory
            self._failed(f"{path}: {name!r} is left out, as it is no Unicode text")
            return False
        return True
