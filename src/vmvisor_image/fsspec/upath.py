"""`VmvisorPath`: paths of `pathlib`'s kind in an image, which universal_pathlib's `UPath` makes of ``vmvisor://``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NoReturn, Self

from fsspec import register_implementation
from upath import UnsupportedOperation, UPath
from upath.types import JoinablePathLike

from vmvisor_image.errors import InvalidArgument, ReadOnly
from vmvisor_image.fsspec.file_system import VmvisorFileSystem

# `UPath` asks the file system how to take paths apart, but only one that is imported.
register_implementation("vmvisor", VmvisorFileSystem, clobber=True)


class _NotWritten(ReadOnly, UnsupportedOperation):
    """An image is never written; the error that all others of this library are, and the one that `UPath` promises."""


class VmvisorPath(UPath):
    """A path in an image: ``UPath("vmvisor://Hypervisor1/boot.cfg", fo="image.dd.bz2")``, or of a chained URL.

    The first part of it is the label or the number of a partition; see `vmvisor_image.fsspec.VmvisorFileSystem`, whose
    arguments are the keyword arguments. All paths that are derived from one share its file system, and so one open
    image, which is closed when the last of them is gone. What would write raises `ReadOnly`, which is an OSError and,
    here, also a NotImplementedError.
    """

    __slots__ = ()

    def with_segments(self, *pathsegments: JoinablePathLike) -> Self:
        """Path of other segments in the same image."""
        with contextlib.suppress(InvalidArgument):  # a path without an image can be taken apart, too
            _ = self.fs  # it opens nothing yet; without this each path derived before it would open the image again
        return super().with_segments(*pathsegments)

    def iterdir(self) -> Iterator[Self]:
        """Paths of what is in the directory.

        Raises:
            PathNotFound: There is no such directory; also a FileNotFoundError.
            NotADirectoryError: It is a file.
        """
        self.fs.info(self.path)
        return super().iterdir()

    def open(self, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        """Open file, as `UPath.open` opens it: "r" for text, "rb" for bytes.

        Raises:
            ReadOnly: `mode` is another one.
        """
        if set(mode) & set("wax+"):
            self._refuse()
        return super().open(mode, *args, **kwargs)

    def touch(self, mode: int = 0o666, exist_ok: bool = True) -> NoReturn:
        """Never done.

        Raises:
            FileExistsError: The file is there, and must not be.
            ReadOnly: Otherwise.
        """
        if not exist_ok and self.exists():
            raise FileExistsError(str(self))
        self._refuse(mode)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        """Method in place of those that write."""
        raise _NotWritten(f"an image is never written: {self}")

    mkdir = rmdir = unlink = rename = replace = move = move_into = write_bytes = write_text = _refuse
    chmod = lchmod = symlink_to = hardlink_to = _refuse
