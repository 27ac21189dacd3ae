"""The file system itself: paths are looked up in an image, and its files are opened."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Mapping
from datetime import datetime
from typing import Any, BinaryIO, NoReturn, SupportsIndex

from fsspec import AbstractFileSystem
from fsspec.core import OpenFile
from fsspec.spec import make_instance
from fsspec.utils import tokenize

from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import Partition
from vmvisor_image.disk.paths import is_component, path_name, split_path
from vmvisor_image.errors import (
    CorruptImage,
    InvalidArgument,
    NotAFile,
    NotAFileSystem,
    PartitionNotFound,
    PathNotFound,
    Problem,
    ReadOnly,
    SourceChanged,
)
from vmvisor_image.files.file import Directory, File
from vmvisor_image.files.tree import FileTree
from vmvisor_image.streams.buffered import BufferedStream
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.streams.urls import is_url

_Found = Directory | File | Partition
"""Target of a path; a partition, whose files then can't be read, stands for its bytes."""


class VmvisorFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """An image as a read-only file system: its root lists the partitions, each a directory of its files.

    A partition whose files this library can't read is listed as a file with the partition's bytes. Extended partitions
    are left out, as their contents are other partitions; so are files with names that are not a single component of a
    path. Paths in a volume that ignores case (FAT) ignore it also; listed names are as in the volume, below the
    directory's path as it was given.

    A directory is read when it is listed, and the image no further than necessary; listing the root reads the first
    sectors and the label of each partition. The image is opened when it is first used. Any number of threads may use
    one object, also in a forked child; an unpickled copy reopens the image.
    """

    protocol = "vmvisor"
    root_marker = ""
    cachable = False  # like archives: it keeps its image open while it exists
    _image: Image | None = None
    _file: Any = None
    """File opened from an `OpenFile`."""

    def __init__(  # noqa: PLR0913  # what is none of these is for fsspec
        self,
        fo: str | os.PathLike[str] | bytes | BinaryIO | ReadAt | OpenFile = "",
        mode: str = "r",
        target_protocol: str | None = None,
        target_options: Mapping[str, Any] | None = None,
        *,
        threads: int | None = None,
        index: str | os.PathLike[str] | None = None,
        cache: str | os.PathLike[str] | bool | None = None,
        member: str | None = None,
        **kwargs: Any,
    ) -> None:
        """A file system of an image, which is not opened yet.

        Args:
            fo: The image: a path, a URL, or anything else that `Image.open` takes.
            mode: "r"; images are never written.
            target_protocol: fsspec's name for the file system of `fo`; None to derive it from `fo` itself.
            target_options: Arguments of that file system.
            threads: See `Image.open`.
            index: See `Image.open`.
            cache: See `Image.open`.
            member: See `Image.open`.
            **kwargs: Arguments of `AbstractFileSystem`.

        Raises:
            InvalidArgument: There is no `fo`.
            ReadOnly: `mode` is not "r"; also an OSError, as are the errors of all methods that write.
        """
        super().__init__(**kwargs)
        if mode != "r":
            raise ReadOnly(f"images are opened to be read, not with mode {mode!r}")
        if isinstance(fo, str) and not fo:
            raise InvalidArgument(
                "vmvisor:// needs an image: fo=…, or a chained URL, vmvisor://…::file:///image.dd.bz2"
            )
        options = dict(target_options or {})
        if target_protocol is not None:
            options["protocol"] = target_protocol
        if isinstance(fo, OpenFile):
            fo = self._file = fo.open()
        self.fo = fo
        self._image = Image(
            fo, threads=threads, index=index, cache=cache, member=member, storage_options=options or None
        )

    @property
    def image(self) -> Image:
        """The image."""
        assert self._image is not None, "an object without one was not made"
        return self._image

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage found so far in everything that was listed and read: with any, listings may be incomplete.

        Reads nothing; see `Image.known_problems`.
        """
        return self.image.known_problems

    def close(self) -> None:
        """Close the image; later reads raise `ClosedError`. Also done when neither this nor a stream of it is left."""
        if self._image is not None:
            self._image.close()
        if self._file is not None:
            self._file.close()

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        args, options = self.storage_args, dict(self.storage_options)
        fo = args[0] if args else options["fo"]
        if isinstance(fo, str | os.PathLike) and not is_url(text := os.fspath(fo)):
            protocol = args[2] if len(args) > 2 else options.get("target_protocol")
            if not os.path.isabs(text) and protocol in (None, "file", "local"):  # noqa: PTH117
                absolute = os.path.abspath(text)  # noqa: PTH100  # links are kept
                args, options = ((absolute, *args[1:]), options) if args else (args, {**options, "fo": absolute})
        elif not isinstance(fo, str | bytes | OpenFile):
            try:
                pickle.dumps(fo)
            except Exception as error:
                raise TypeError(
                    f"what was opened of an image can't be pickled where that was given as a {type(fo).__name__}, which"
                    " no other process can open: give its path, a URL, or bytes"
                ) from error
        return make_instance, (type(self), args, options)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        stripped = super()._strip_protocol(path)
        return stripped if isinstance(stripped, list) else stripped.lstrip("/")

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:  # noqa: ARG002  # fsspec's signature
        """Entries of one directory, or of the root, in the order of the disk; for a file, the file itself.

        Args:
            path: Path of a directory or file.
            detail: Whether to give the dictionaries of `info`, without extents, instead of names.
            **kwargs: Ignored.

        Raises:
            PathNotFound: The path does not exist; also a FileNotFoundError.
            CorruptImage: The image or its partition table is damaged.
        """
        path = self._strip_protocol(path)
        if not path:
            found = self._partitions()
        elif isinstance(here := self._find(path), Directory):
            found = {f"{path}/{entry.name}": entry for entry in here.iterdir() if is_component(entry.name)}
        else:
            found = {path: here}
        return [_describe(name, entry) for name, entry in found.items()] if detail else list(found)

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:  # noqa: ARG002  # fsspec's signature
        """Properties of one file or directory.

        Returns:
            "name", "type" ("file" or "directory"), "size" in bytes (0 for a directory), "modified" (see
            `File.modified`; None where it is not known), "mtime" (see `File.timestamp`; only where it is known), and
            for a file "extents" (see `File.extents`; None where they are damaged).

        Raises:
            PathNotFound: The path does not exist; also a FileNotFoundError.
            CorruptImage: The image or its partition table is damaged.
        """
        path = self._strip_protocol(path)
        if not path:
            return {"name": "", "type": "directory", "size": 0, "modified": None}
        found = self._find(path)
        about = _describe(path, found)
        if isinstance(found, File):
            try:
                about["extents"] = found.extents
            except CorruptImage:
                about["extents"] = None
        return about

    def modified(self, path: str) -> datetime:
        """Time at which a file was last written; see `File.modified`.

        Raises:
            PathNotFound: The path does not exist.
            NotImplementedError: The time is not known; fsspec uses this error for that.
        """
        time: datetime | None = self.info(path)["modified"]
        if time is None:
            raise NotImplementedError(f"when {path!r} was last written is not known")
        return time

    def ukey(self, path: str) -> str:
        """Hash that differs between paths and between images, as far as their URLs and options do."""
        key: str = tokenize(self._fs_token, self._strip_protocol(path))
        return key

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:  # noqa: ARG002
        """Bytes of a file from `start` to `end` (exclusive), both as in a slice, and so cut at the file's end.

        Raises:
            PathNotFound: The path does not exist.
            NotAFile: The path is a directory; also an IsADirectoryError.
            CorruptImage: The file is damaged there.
        """
        file = self._find_file(path)
        wanted = range(file.size)[start:end]
        return file.read_at(wanted.start, len(wanted))

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> io.BufferedReader:  # noqa: ARG002
        if mode != "rb":
            raise ReadOnly(f"files of an image open as 'rb' only, not {mode!r}")
        return _Stream(self._find_file(path), self, self._strip_protocol(path))

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        """Method in place of those of fsspec that write, which do nothing or raise NotImplementedError."""
        raise ReadOnly("an image is never written")

    mkdir = makedirs = rmdir = rm_file = cp_file = touch = _refuse  # the others end in one of these, or in `_open`

    def _find_file(self, path: str) -> File | Partition:
        found = self._find(self._strip_protocol(path))
        if isinstance(found, Directory):
            raise NotAFile(f"{path!r} is a directory")
        return found

    def _find(self, path: str) -> _Found:
        if not path:
            raise NotAFile("the root is a directory")
        partition, rest = self._partition(path)
        root = _root(partition)
        if isinstance(root, Directory):
            try:
                return root.joinpath(rest or "")
            except PathNotFound as error:
                prefix = path.removesuffix(rest or "")
                raise error.restated(f"no {path!r} in this image", prefix=prefix) from error
        if rest:
            raise PathNotFound(f"no {path!r}: the files of partition {partition.key} can't be read")
        return root

    def _partition(self, path: str) -> tuple[Partition, str | None]:
        """Partition that a path begins with, and the rest; reads no more of the disk than finding it takes."""
        try:
            found, rest = split_path(self.image, path)
        except PartitionNotFound as error:
            raise PathNotFound(str(error)) from error
        if found.is_container:
            raise PathNotFound(f"partition {found.key} is an extended one: what it holds are other partitions")
        return found, rest

    def _partitions(self) -> dict[str, _Found]:
        """Root directory of each partition, or the partition, by its label, or by number where that is ambiguous."""
        found: dict[str, _Found] = {}
        for partition in self.image.partitions:
            if not partition.is_container:
                found[path_name(self.image.partitions, partition)] = _root(partition)
        return found


class _Stream(BufferedStream):
    """An open file; it keeps its file system, and has the attributes of fsspec's files.

    An unpickled copy has its own file system, and begins where this one was.
    """

    def __init__(self, file: File | Partition, fs: VmvisorFileSystem, path: str) -> None:
        super().__init__(file, path)
        self.fs = fs
        self.path = path
        self.size = file.size

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return _reopen, (self.fs, self.path, self.size, self.tell())


def _reopen(fs: VmvisorFileSystem, path: str, size: int, position: int) -> _Stream:
    """Stream of the same file at the same position, in bytes from its start.

    Raises:
        SourceChanged: The file has another size than it had.
    """
    stream = fs._open(path)
    assert isinstance(stream, _Stream)
    if stream.size != size:
        raise SourceChanged(f"{path!r} has changed: it has {stream.size} bytes, and had {size} when it was pickled")
    stream.seek(position)
    return stream


def _root(partition: Partition) -> Directory | Partition:
    """Root directory of a partition, or the partition itself where its files can't be read.

    Unlike `Partition.files` this does not determine the kind of other content.
    """
    try:
        files: FileTree | None = getattr(partition.volume, "files", None)
        return partition if files is None else files.root
    except (CorruptImage, NotAFileSystem):  # such as the second device of a datastore: the other partitions can be read
        return partition


def _describe(name: str, found: _Found) -> dict[str, Any]:
    is_directory = isinstance(found, Directory)
    about = {
        "name": name,
        "type": "directory" if is_directory else "file",
        "size": 0 if isinstance(found, Directory) else found.size,
        "modified": None if isinstance(found, Partition) else found.modified,
    }
    timestamp = None if isinstance(found, Partition) else found.timestamp
    return about if timestamp is None else {**about, "mtime": timestamp}
