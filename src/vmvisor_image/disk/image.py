"""`Image`: open a source, take its layers off, find its partitions."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, Unpack, overload

from vmvisor_image.base.destination import check_cache
from vmvisor_image.base.forking import ForkSafeLock
from vmvisor_image.base.limits import Limits, Meter
from vmvisor_image.base.open_options import BESIDE, OpenOptions, ParentChoice, Progress, check_options
from vmvisor_image.base.shown import Shown
from vmvisor_image.bzip2.reader import Bzip2Reader
from vmvisor_image.compressions.layer import Layer, LayerOptions
from vmvisor_image.compressions.peel import is_compression
from vmvisor_image.disk.partition import Partition
from vmvisor_image.disk.partition_table import PartitionTable
from vmvisor_image.disk.paths import glob, resolve
from vmvisor_image.disk.placing import bridged
from vmvisor_image.disk.tables.find import find_table
from vmvisor_image.disk.tables.table import Scheme, UnreadableTable
from vmvisor_image.errors import ClosedError, CorruptImage, DestinationFailed, InvalidArgument, MemberNotFound, Problem
from vmvisor_image.files.checksums import Checksum, check_beside
from vmvisor_image.files.file import Directory, File
from vmvisor_image.layers.unwrap import neighbour_of, unwrap
from vmvisor_image.streams.buffered import open_stream
from vmvisor_image.streams.fingerprint import fingerprint
from vmvisor_image.streams.linked import Link, Linked, Parent
from vmvisor_image.streams.opening import SourceLike, open_remote, open_source, path_of
from vmvisor_image.streams.reading import meter_of, prefetch
from vmvisor_image.streams.source import ReadAt, Source
from vmvisor_image.streams.sources import FileSource, has_folder
from vmvisor_image.streams.urls import is_url
from vmvisor_image.streams.views import Watched

if TYPE_CHECKING:
    from vmvisor_image.boot.system import System

_Parameters = ParamSpec("_Parameters")
_Kind = TypeVar("_Kind", bound="Image")


@dataclass(frozen=True, slots=True)
class _Opened:
    """The sources, layers and closers of an open image."""

    layers: tuple[Layer, ...]
    source: Source
    """Bytes that were opened, outside of all layers."""
    disk: Source
    closers: tuple[Callable[[], None], ...]
    neighbours: tuple[Source, ...]
    """Further files that hold parts of the disk, such as the extents of a VMDK."""
    name: str | None
    """Name of the file that was opened; None for a source without a name."""


class _Open(Generic[_Parameters]):
    """Descriptor that gives two methods one name: `Image.open` makes an image, `image.open` a stream of its disk."""

    def __init__(self, make: Callable[Concatenate[Any, _Parameters], Image]) -> None:
        self._make = make

    @overload
    def __get__(self, image: None, kind: type[_Kind]) -> Callable[_Parameters, _Kind]: ...
    @overload
    def __get__(self, image: Image, kind: type[Image]) -> Callable[[], io.BufferedReader]: ...
    def __get__(self, image: Image | None, kind: type[Image]) -> Callable[..., Image | io.BufferedReader]:
        return MethodType(self._make, kind) if image is None else image.open_stream


class Image(Shown, Source):
    """A disk image, read lazily: nothing is decoded before it is needed, and nothing is ever written.

    Use it as a context manager, or call `close`. Any number of threads may read one image. `Image.open` makes one; the
    ``open()`` of one that is made gives a stream of its decoded disk, as `open_stream` does.
    """

    def __init__(self, source: SourceLike, **options: Unpack[OpenOptions]) -> None:
        """A handle that opens `source` at its first use; `Image.open` has the same arguments and opens it at once."""
        check_options("Image", options, OpenOptions.__optional_keys__)
        threads, limits = options.get("threads"), options.get("limits")
        if threads is not None and threads < 1:
            raise InvalidArgument(f"threads must be at least 1, not {threads}")
        check_cache(options.get("cache"))
        self._given = source
        self._options = options
        self._meter = meter_of(source) if limits is None else Meter(limits)
        self._lock = ForkSafeLock()
        self._opened: _Opened | None = None
        self._table: PartitionTable | None = None
        self._passed_over: list[Problem] = []
        self._closed = False

    @_Open
    def open(  # noqa: PLR0913  # the one place that names them all; elsewhere they are `OpenOptions`
        cls: Any,  # noqa: N805  # bound to the class
        source: SourceLike,
        *,
        threads: int | None = None,
        index: str | os.PathLike[str] | None = None,
        cache: str | os.PathLike[str] | bool | None = None,
        progress: Progress | None = None,
        member: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        salvage: bool = False,
        parent: Any = BESIDE,
        snapshot: str | None = None,
        allow_cid_mismatch: bool = False,
    ) -> Image:
        """An open image, its layers recognised; the disk itself is not read yet.

        Args:
            source: A path, a URL that fsspec takes (``https://…``, ``s3://…``, or chained,
                ``simplecache::https://…``), bytes, a seekable binary file object (left open by `close`), or any
                `ReadAt`.
            threads: Number of threads that decode; None for one per core.
            index: Path of the index of a bzip2 source, with which only the blocks that are read are decoded: used
                where it exists, written by `close`. "auto" for beside the image, or else in the user's cache directory;
                see `vmvisor_image.bzip2.Bzip2Reader`.
            cache: Directory that keeps the decoded data of a bzip2 source as zstd, which decodes faster the next time;
                True for beside the image, or else in the user's cache directory.
            progress: Called with the compressed bytes passed so far and in total (None where that is not known),
                from the thread that reads. Of a disk that is not compressed these are the bytes of the disk that were
                read, at most its size, and its size.
            member: Path of the disk in a container (an installer CD, a tar or zip archive), or the path of an archive
                in it and the path in that archive, with a slash between. None for the only disk in it.
            storage_options: Keyword arguments of `fsspec.open`, such as credentials; a source with any is a URL.
            limits: Limits on the cost of reading; None for those of the image that the source lies in, or the defaults.
            salvage: Whether to go on behind damage in bzip2 data, so that only the contents of the damaged blocks are
                lost; decodes everything once. What is behind is placed by counting back from the end of the last
                partition, or, where the partition table is lost, by headers in it that say where they lie; the
                partitions are then those of `PartitionTable.search`. What has no known place is a problem.
            parent: Disk that the virtual disk rests on, as any source or an `Image` (left open by `close`); None to
                read it alone, with zeros, and a problem, for what it does not hold. By default the file of the name
                that it has for its parent is looked for in its own directory, archive or place on a server, and so on
                down the chain; directories in that name are not followed.
            snapshot: Name, or else number, of a snapshot inside a qcow2 image; None for its present state.
            allow_cid_mismatch: Whether to read a disk whose parent has changed since, which is then a problem; the
                data of the two may not belong together.

        Raises:
            SourceError: The file can't be opened; where there is none, or it is a folder or not permitted, the error is
                also Python's own for that, such as FileNotFoundError.
            RemoteError: The URL can't be read.
            DependencyMissing: The source is a URL, and fsspec or a package that it needs for it is not installed.
            CorruptImage: A layer is recognised and damaged, or a parent is missing or is another one.
            LimitExceeded: There are more layers than `limits` allow, or finding them took too long.
            NoDiskImage: A container holds nothing that looks like a disk.
            SeveralImages: A container holds several disks, and `member` names none.
            MemberNotFound: The container has no member of that name, or there is no container; or there is no such
                snapshot.
            InvalidArgument: The source has none of these types, an argument is out of range, `cache` is a file, or a
                parent is given for a disk that has none.
        """
        image: Image = cls(
            source,
            threads=threads,
            index=index,
            cache=cache,
            progress=progress,
            member=member,
            storage_options=storage_options,
            limits=limits,
            salvage=salvage,
            parent=parent,
            snapshot=snapshot,
            allow_cid_mismatch=allow_cid_mismatch,
        )
        with image.limits.operation():
            _ = image.disk
        return image

    def open_stream(self) -> io.BufferedReader:
        """A seekable, read-only binary stream of the decoded disk; ``image.open()`` is the same."""
        return open_stream(self.disk)

    @property
    def meter(self) -> Meter:
        """Counter of the decoded bytes."""
        return self._meter

    @property
    def limits(self) -> Limits:
        """Limits on the cost of reading the image."""
        return self._meter.limits

    @property
    def disk(self) -> Source:
        """The decoded disk."""
        return self._open().disk

    @property
    def source(self) -> Source:
        """Bytes that were opened, as they are, outside of all layers; `Layer.source` is the inner end of a layer."""
        return self._open().source

    @property
    def size(self) -> int:
        """Bytes of the decoded disk; of a compressed image the first call decodes to the end."""
        return self.disk.size

    @property
    def size_is_known(self) -> bool:
        """Whether `size` needs no decoding."""
        return self.disk.size_is_known

    @property
    def fingerprint(self) -> bytes:
        """Fingerprint of the source, 32 bytes that differ after a change; see `vmvisor_image.streams.fingerprint`.

        For a disk in several files it is that of all of them; at a snapshot of the disk it is another one.
        """
        found = [fingerprint(source) for source in self.sources]
        chain = [(link.kind, link.name) for link in self.chain[1:]]
        if chain or self.snapshot is not None:
            found.append(repr((chain, self.snapshot)).encode("utf-8", "surrogatepass"))
        return found[0] if len(found) == 1 else hashlib.sha256(b"".join(found)).digest()

    @property
    def sources(self) -> tuple[Source, ...]:
        """`source`, and further files that hold parts of the disk: extents of a VMDK, the disks that it rests on."""
        opened = self._open()
        return (opened.source, *opened.neighbours)

    @property
    def local_paths(self) -> tuple[str, ...]:
        """Paths of the files that it is read from, with those of all its layers."""
        return tuple(dict.fromkeys(path for source in self.sources for path in source.local_paths))

    @property
    def known_size(self) -> int | None:
        """`size`, or None where damage hides the end of the disk."""
        try:
            return self.size
        except CorruptImage:
            return None

    @property
    def path(self) -> str | None:
        """The path or URL that was opened, or None for an image that has none."""
        return path_of(self._given)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Compressions and containers around the disk, outermost first; empty for a bare disk."""
        return self._open().layers

    @property
    def chain(self) -> tuple[Link, ...]:
        """Disks that rest on each other, this one first; one link for a disk that rests on nothing."""
        opened = self._open()
        last = opened.layers[-1] if opened.layers else None
        name = opened.name if last is None else last.name
        found: list[Link] = []
        source = opened.disk if last is None else last.source  # not what reports the progress of reading it
        kind = last.kind if last is not None and isinstance(source, Linked) else "raw"
        while True:
            found.append(Link(kind, name, source))
            parent = source.parent if isinstance(source, Linked) else None
            if parent is None:
                return tuple(found)
            kind, name, source = parent.kind, parent.name, parent.source

    @property
    def snapshot(self) -> str | None:
        """Snapshot inside the virtual disk that was asked for; None for its present state."""
        return self._options.get("snapshot")

    @property
    def scheme(self) -> Scheme:
        """Kind of the partition table: "mbr", "gpt", or "none" without one."""
        return self.partitions.scheme

    @property
    def partitions(self) -> PartitionTable:
        """Partition table of the disk; reads the first sector.

        Where damage hides it, each use of the partitions raises `CorruptImage`; with `salvage` they are those that a
        search finds, see `PartitionTable.search`.
        """
        with self._lock:
            if self._table is None:
                table = find_table(self.disk)
                found = PartitionTable(self, table)
                if isinstance(table, UnreadableTable) and self._options.get("salvage") and self.known_size is not None:
                    found = found.search()
                self._table = found
            return self._table

    def resolve(self, path: str) -> Partition | Directory | File:
        """Target of a path ``PARTITION/PATH``; see `vmvisor_image.disk.paths.resolve`."""
        return resolve(self, path)

    def glob(self, pattern: str) -> Iterator[File]:
        """Files whose path ``PARTITION/PATH`` matches a pattern; see `vmvisor_image.disk.paths.glob`."""
        return glob(self, pattern)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage in the layers as far as they were read, in the partition table and in each partition.

        May decode everything: it reads the whole partition table, each partition's boot sector, root directory and
        ``boot.cfg``, and the disk's size, so a compressed image is decoded to its end once. `quick_problems` and
        `known_problems` are not so thorough, and not so slow.
        """
        found: list[Problem] = []
        try:
            with self.limits.operation():
                table = self.partitions
                found += table.problems
                _ = table.banks  # a boot.cfg that can't be read is a problem of its partition
                for partition in table:
                    _ = partition.label
                    found += partition.problems
        except CorruptImage as error:
            found.append(Problem.of(error))
        return self._with_wrapping(found)

    @property
    def quick_problems(self) -> tuple[Problem, ...]:
        """Damage found so far in everything that was read, and in the entries of the partition table, which it reads.

        A compressed image is decoded no further than to the last entry. Nothing is read of the partitions, nor of what
        only the end of the disk shows: its size, and the backup of a GPT.
        """
        try:
            with self.limits.operation():
                found = self.partitions.quick_problems
        except CorruptImage as error:
            found = (Problem.of(error),)
        return self._with_wrapping(found)

    @property
    def known_problems(self) -> tuple[Problem, ...]:
        """Damage found so far in everything that was read: `problems` without opening or reading anything."""
        table = self._table
        return () if self._opened is None else self._with_wrapping([] if table is None else table.known_problems)

    @property
    def layer_problems(self) -> tuple[Problem, ...]:
        """Damage found so far in the layers, parts of containers that were passed over, and data without a place."""
        return () if self._opened is None else self._with_wrapping(())

    def _with_wrapping(self, of_disk: Iterable[Problem]) -> tuple[Problem, ...]:
        """Problems of the disk and of its layers as far as they were read; each once."""
        found = [*of_disk]
        for layer in self.layers:
            found += layer.source.problems
            if layer.files is not None:
                found += layer.files.problems
        return tuple(dict.fromkeys([*found, *self._passed_over]))

    def system(self, bank: int | str | None = None) -> System:
        """System that it boots: version, modules in load order, and the files as the hypervisor would see them.

        Args:
            bank: Number or label of a boot bank's partition, or "active"; None for the usual one, see
                `vmvisor_image.boot.bootable.find_bootable`.

        Raises:
            PartitionNotFound: There is no boot bank.
        """
        from vmvisor_image.boot.system import System

        return System(self, bank)

    def checksums(self) -> tuple[Checksum, ...]:
        """Comparisons of the members taken out of containers with the checksum files beside them; reads them whole.

        The installer of ESXi 4.1 has an ``imagedd.md5`` beside its ``imagedd.bz2``.

        Raises:
            CorruptImage: A checksum file holds no checksum or is too large, or a member is damaged.
        """
        found: list[Checksum] = []
        with self.limits.operation():
            for layer in self.layers:
                if layer.files is not None and isinstance(layer.source, File):
                    found += check_beside(layer.source, layer.files)
        return tuple(found)

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from byte `offset` of the decoded disk.

        Raises:
            TruncatedImage: The range passes the end of the disk.
            CorruptImage: The image is damaged there.
        """
        return self.disk.read_at(offset, length)

    def read_up_to(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from byte `offset`; fewer only at the end of the disk, whose size need not be known.

        Raises:
            CorruptImage: The image is damaged there.
        """
        return self.disk.read_up_to(offset, length)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """See `vmvisor_image.streams.source.Source.read_into`.

        Raises:
            CorruptImage: The image is damaged there.
        """
        return self.disk.read_into(offset, buffer)

    def copy_range(self, offset: int, length: int, descriptor: int, at: int) -> int:
        """See `vmvisor_image.streams.source.Source.copy_range`."""
        return self.disk.copy_range(offset, length, descriptor, at)

    def prefetch(self, offset: int, length: int) -> None:
        """See `vmvisor_image.streams.source.Source.prefetch`."""
        prefetch(self.disk, offset, length)

    def skip_zeros(self, offset: int, end: int) -> int:
        """See `vmvisor_image.streams.source.Source.skip_zeros`."""
        return self.disk.skip_zeros(offset, end)

    def close(self) -> None:
        """Close everything that `open` opened; a file object or `ReadAt` of the caller's stays open."""
        with self._lock:
            self._closed = True
            opened, self._opened = self._opened, None
            table = self._table
        with contextlib.ExitStack() as stack:  # all of them, even where one fails
            for close in opened.closers if opened is not None else ():  # the last opened is closed first
                stack.callback(close)
            if table is not None:
                stack.callback(table.close)

    def _open(self) -> _Opened:
        opened = self._opened
        if opened is not None:
            return opened
        with self._lock:
            if self._closed:
                raise ClosedError("the image is closed")
            if self._opened is None:
                self._opened = self._open_source()
            return self._opened

    def _open_source(self) -> _Opened:
        given = self._options
        opened = open_source(self._given, given.get("storage_options"))
        source, name = opened.source, opened.name
        closers: list[Callable[[], None]] = [opened.close]
        neighbours: list[Source] = []
        neighbour = self._neighbour(source, closers, neighbours)
        options = LayerOptions(
            given.get("threads"),
            given.get("progress"),
            index=given.get("index"),
            cache=given.get("cache"),
            member=given.get("member"),
            report=self._passed_over.append,
            neighbour=neighbour,
            parent=BESIDE,
            snapshot=given.get("snapshot"),
            allow_cid_mismatch=given.get("allow_cid_mismatch", False),
            meter=self.meter,
        )
        try:
            options = replace(options, parent=self._parent(closers, neighbours))
            layers = unwrap(source, name, options)
            self._check_use(options, layers)
        except BaseException:
            for close in closers:
                close()
            raise
        if given.get("salvage") and layers and isinstance(layers[-1].source, Bzip2Reader):
            source_in_place, problem = bridged(layers[-1].source)
            layers = (*layers[:-1], replace(layers[-1], source=source_in_place))
            if problem is not None:
                self._passed_over.append(problem)
        closers += [layer.source.close for layer in layers]
        disk = layers[-1].source if layers else source
        progress = given.get("progress")
        if progress is not None and not any(map(is_compression, layers)):  # else the outermost compression reports it
            disk = Watched(disk, progress)
        return _Opened(layers, source, disk, tuple(closers), (*neighbours,), name)

    def _parent(self, closers: list[Callable[[], None]], neighbours: list[Source]) -> Parent | ParentChoice | None:
        """Parent for the disk, which is opened here where it is given as something else than an `Image`."""
        given = self._options.get("parent", BESIDE)
        if given is None or isinstance(given, ParentChoice):
            return given
        image = given
        if not isinstance(given, Image):
            image = Image(given, limits=self.limits, storage_options=self._options.get("storage_options"))
            closers.append(image.close)
        neighbours += image.sources
        first = image.chain[0]
        return Parent(first.kind, first.name, first.source)

    def _check_use(self, options: LayerOptions, layers: tuple[Layer, ...]) -> None:
        """Refuse a parent, or a snapshot, for a disk that has none."""
        disks = [layer.source for layer in layers if isinstance(layer.source, Linked)]
        if isinstance(options.parent, Parent) and not any(disk.parent for disk in disks):
            raise InvalidArgument("a parent is given, and the disk does not rest on another one")
        if options.snapshot is not None and not disks:
            raise MemberNotFound(f"there is no snapshot {options.snapshot!r}: it is not a virtual disk that has any")

    def _neighbour(
        self, source: Source, closers: list[Callable[[], None]], neighbours: list[Source]
    ) -> Callable[[str], ReadAt] | None:
        """Opener of files beside the given one, which adds them to `neighbours`; None where there can be none."""
        if isinstance(source, File):
            return neighbour_of(source)
        if isinstance(source, FileSource) and not has_folder(source.path):
            return None
        path, options = self.path, self._options.get("storage_options")
        if path is None or not (isinstance(source, FileSource) or self._is_url(path)):
            return None

        def open_neighbour(name: str) -> Source:
            if isinstance(source, FileSource):
                found: Source = FileSource(Path(source.path).parent / name)
            else:
                found, _ = open_remote(path, options, neighbour=name)
            closers.append(found.close)
            neighbours.append(found)
            return found

        return open_neighbour

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except DestinationFailed:  # the index can't be written: second to what went wrong before, if anything did
            if kind is None:
                raise

    def __reduce__(self) -> tuple[Any, ...]:
        given: SourceLike | None = self.path
        if given is None and isinstance(self._given, bytes):
            given = self._given
        elif isinstance(given, str) and not self._is_url(given):
            given = os.path.abspath(given)  # noqa: PTH100  # links are kept
        if given is None:
            raise TypeError("only an image of a path, of a URL or of bytes can be pickled")
        options: OpenOptions = {**self._options, "limits": self.limits, "progress": None}
        parent = path_of(options.get("parent"))
        if isinstance(parent, str) and not self._is_url(parent):
            options["parent"] = os.path.abspath(parent)  # noqa: PTH100  # links are kept
        return (_reopen, (type(self), given, options))

    def _is_url(self, path: str) -> bool:
        return self._options.get("storage_options") is not None or is_url(path)

    def __repr__(self) -> str:
        what = f"of {type(self._given).__name__}" if self.path is None else repr(self.path)
        return f"<Image {what}>"


def _reopen(kind: type[Image], source: SourceLike, options: OpenOptions) -> Image:
    return kind(source, **options)
