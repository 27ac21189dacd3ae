"""Conversion of a decoded image to seekable zstd, or to a raw file.

Seekable zstd is as small as bzip2, and hundreds of times faster to read again. It is plain zstd (`zstd -d` decodes it):
frames of a fixed decoded size with checksums, and the seek table of zstd's seekable format at its end.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from vmvisor_image.base.cores import available_cores
from vmvisor_image.base.destination import (
    check_apart,
    check_replaceable,
    from_source,
    is_at,
    lock,
    publish,
    write_all,
    writing,
)
from vmvisor_image.base.open_options import Progress
from vmvisor_image.bzip2.bridged import BridgedReader, ZeroFilled
from vmvisor_image.compressions import zstd
from vmvisor_image.compressions.zstd import walk_frames
from vmvisor_image.disk import raw
from vmvisor_image.disk.image import Image
from vmvisor_image.errors import CorruptImage, InvalidArgument, SourceError
from vmvisor_image.files.file import File
from vmvisor_image.layers.containers import ARCHIVE_SUFFIXES, COMPRESSED_SUFFIXES, DISK_SUFFIXES
from vmvisor_image.schemas.zstd import SeekTableEntry
from vmvisor_image.streams.checked import as_source
from vmvisor_image.streams.fingerprint import fingerprint, is_identified
from vmvisor_image.streams.opening import SourceLike
from vmvisor_image.streams.reading import prefetch, read_up_to
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.streams.sources import FileObjectSource
from vmvisor_image.streams.zstd_frames import compress_frame, decode_frame, seek_table

FRAME_SIZE: Final = 1 << 18
"""Decoded bytes in a frame: a random read decodes one, in about 0.2 ms."""
LEVEL: Final = 3
_MOST_FRAMES: Final = 0x8000000
"""Most frames in a seek table (ZSTD_SEEKABLE_MAXFRAMES)."""
_READ: Final = 16
"""Frames read at once."""


_OTHER_SUFFIXES: Final = (
    *(
        each
        for each in (*DISK_SUFFIXES, *ARCHIVE_SUFFIXES, *COMPRESSED_SUFFIXES)
        if each not in (*zstd.SUFFIXES, *raw.SUFFIXES)
    ),
    *(".7z", ".lz4", ".ova", ".qcow", ".rar", ".vdi"),
)
"""Suffixes of files that are not what is written here: those of all formats that are read, and some others."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """Result of a conversion."""

    path: Path
    size: int
    """Decoded bytes."""
    compressed: int
    """Bytes of the file."""
    resumed_at: int
    """Decoded bytes that an earlier, interrupted run had already written."""


def convert(  # noqa: PLR0913  # each is one setting of the command
    source: SourceLike | Image,
    dest: str | os.PathLike[str],
    *,
    level: int = LEVEL,
    frame_size: int = FRAME_SIZE,
    threads: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Conversion:
    """Result of writing a source as seekable zstd or as a raw disk; the file appears whole or not at all.

    A raw disk has the bytes as they are, and holes where they are zeros. It is what `qemu-img convert -O raw` writes,
    also of a disk with snapshots. An interrupted run leaves nothing of it.

    Of seekable zstd, a run that is interrupted leaves ``DEST.….part``, and the next one of the same source continues
    where that ends, after checking all frames in it. Where a source has neither a time nor a version that identifies
    it, such as one of the caller's own, the frames are also compared with its bytes. Of an image opened with
    ``salvage=True`` the bytes that are lost are written as zeros, and `Image.problems` names their range.

    Args:
        source: An open image or any `ReadAt`, whose bytes are written as they are; or anything else that `Image.open`
            takes, whose disk is written.
        dest: Path of the file to write. The suffixes ``.raw``, ``.img`` and ``.dd`` make a raw disk; ``.zst``, or any
            that is not the suffix of another format, seekable zstd.
        level: zstd's compression level.
        frame_size: Decoded bytes in a frame of zstd, at least 4096.
        threads: Number of threads that compress, or that decode `source`; None for one per core.
        overwrite: Whether to replace `dest` where it exists.
        progress: Called with the decoded bytes written so far, and None: their total is not known.
        storage_options: See `Image.open`.

    Raises:
        DestinationExists: `dest` exists, is not a file that could be replaced, or is the image itself.
        CorruptImage: The source is damaged; the frames before the damage stay in the ``.part`` file.
        InvalidArgument: `level` or `frame_size` is out of range, or the suffix of `dest` is that of another format.
        DestinationFull: There is no room left; the written frames stay in the ``.part`` file.
        DestinationFailed: The file can't be written for another reason.
        SourceError: The source can't be read.
    """
    if not 4096 <= frame_size <= 1 << 30:
        raise InvalidArgument(f"frame_size must be 4096 to 1073741824 bytes, not {frame_size}")
    if not 1 <= level <= 22:
        raise InvalidArgument(f"level must be 1 to 22, not {level}")
    if threads is not None and threads < 1:
        raise InvalidArgument(f"threads must be at least 1, not {threads}")
    target = Path(dest)
    check_suffix(target)
    check_replaceable(target, overwrite=overwrite)
    if not isinstance(source, Image) and not hasattr(source, "read_at"):
        with Image.open(source, threads=threads, storage_options=storage_options) as image:
            return convert(
                image,
                dest,
                level=level,
                frame_size=frame_size,
                threads=threads,
                overwrite=overwrite,
                progress=progress,
            )
    source = cast("Image | ReadAt", source)
    for given in _sources(source):
        check_apart(target, *as_source(given).local_paths)
    if is_raw(target):
        return _write_raw(source, target, progress)
    part = target.with_name(f"{target.name}.{_key(source)}-{frame_size}.part")
    with _claimed(part) as (part, file):
        entries = _whole_frames(file, frame_size)
        content = _with_zeros(source)
        if not all(map(is_identified, _sources(source))):
            entries = _matching(entries, file, content, frame_size)
        resumed = len(entries) * frame_size
        with writing(target):
            file.truncate(sum(entry.compressed for entry in entries))
            file.seek(0, os.SEEK_END)
        size = resumed
        for data, entry in _compress(content, resumed, frame_size, level, threads or available_cores()):
            with writing(target):
                write_all(file, data)
            entries.append(entry)
            size += entry.decompressed
            if progress is not None:
                progress(size, None)
        if len(entries) > _MOST_FRAMES:
            raise InvalidArgument(f"{len(entries)} frames are more than a seek table may have: choose larger ones")
        with writing(target):
            write_all(file, seek_table(entries))
            compressed = file.tell()
            publish(file, part, target)
    return Conversion(target, size, compressed, resumed)


def is_raw(target: Path) -> bool:
    """Whether the name of a file says that a raw disk is to be written."""
    return target.name.lower().endswith(raw.SUFFIXES)


def _write_raw(source: Image | ReadAt, target: Path, progress: Progress | None) -> Conversion:
    part = target.with_name(f"{target.name}-{os.urandom(8).hex()}.part")
    with _private(part) as file:
        size = raw.write_raw(as_source(_with_zeros(source)), file, target, progress)
        publish(file, part, target)
    return Conversion(target, size, size, 0)


def check_suffix(target: Path) -> None:
    """Refuse a name that says that the file is something else.

    Raises:
        InvalidArgument: It ends in the suffix of another format.
    """
    found = next((suffix for suffix in _OTHER_SUFFIXES if target.name.lower().endswith(suffix)), None)
    if found is not None:
        raise InvalidArgument(
            f"{target}: seekable zstd or a raw disk is written, which is not what {found} stands for; choose a name"
            f" that ends in {zstd.SUFFIXES[0]} or {raw.SUFFIXES[0]}"
        )


def _with_zeros(source: Image | ReadAt) -> ReadAt:
    """The bytes to write: of salvaged data with zeros in the place of what is lost."""
    innermost = source.layers[-1].source if isinstance(source, Image) and source.layers else None
    return ZeroFilled(innermost) if isinstance(innermost, BridgedReader) else source


def _sources(source: Image | ReadAt) -> tuple[ReadAt, ...]:
    """All sources of the bytes."""
    return source.sources if isinstance(source, Image) else (source,)


def _key(source: Image | ReadAt) -> str:
    """Hash of everything that the bytes depend on; of an image its sources and layers, known without decoding."""
    digest = hashlib.sha256(b"".join(fingerprint(part, exact=True) for part in _sources(source)))
    if isinstance(source, Image):
        # A container's member by its path; any other layer by its reader, as salvaged data has its own reader.
        inside = [
            layer.source.path if isinstance(layer.source, File) else type(layer.source) for layer in source.layers
        ]
        way = [(layer.kind, layer.name, within) for layer, within in zip(source.layers, inside, strict=True)]
        chain = [(link.kind, link.name) for link in source.chain[1:]]
        digest.update(repr((way, chain, source.snapshot)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _claimed(part: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Path and file of an earlier run's part, or of a new one, locked; a private one where another run has that lock.

    A private part is removed when its run ends early: no other run would find it.
    """
    with contextlib.ExitStack() as stack:
        while True:
            with writing(part), contextlib.suppress(FileExistsError):
                part.open("xb").close()
            with writing(part):
                file = stack.enter_context(part.open("r+b", buffering=0))
            if not lock(file):
                break
            if is_at(part, file):  # otherwise the run that had it has just published it
                yield part, file
                return
            file.close()
        own = part.with_name(f"{part.stem}-{os.urandom(8).hex()}.part")
        yield own, stack.enter_context(_private(own))


@contextlib.contextmanager
def _private(path: Path) -> Iterator[BinaryIO]:
    """A new file that no other run knows of; it is removed when this run ends early."""
    with writing(path):
        file = path.open("x+b", buffering=0)
    with file:
        try:
            yield file
        except BaseException:
            file.close()  # Windows can't remove an open file
            with contextlib.suppress(OSError):
                path.unlink()
            raise


def _whole_frames(file: BinaryIO, frame_size: int) -> list[SeekTableEntry]:
    """Frames at the start of an earlier run's part that are whole and have the right size and checksum."""
    entries: list[SeekTableEntry] = []
    source = FileObjectSource(file)
    with contextlib.suppress(CorruptImage):  # here the earlier run was interrupted
        for frame in walk_frames(source):
            if frame.size != frame_size or decode_frame(source.read_at(frame.start, frame.length), frame_size) is None:
                break
            entries.append(SeekTableEntry(frame.length, frame_size))
    return entries


def _matching(entries: list[SeekTableEntry], file: BinaryIO, source: ReadAt, frame_size: int) -> list[SeekTableEntry]:
    """Entries up to the first one whose frame differs from the source."""
    frames, at = FileObjectSource(file), 0
    given = from_source(read_up_to(source, number * frame_size, frame_size) for number in range(len(entries)))
    for number, (entry, data) in enumerate(zip(entries, given, strict=True)):
        if decode_frame(frames.read_at(at, entry.compressed), frame_size) != data:
            return entries[:number]
        at += entry.compressed
    return entries


def _compress(
    source: ReadAt, start: int, frame_size: int, level: int, threads: int
) -> Iterator[tuple[bytes, SeekTableEntry]]:
    """Frames of the source's bytes from `start`, in order, compressed ahead in threads."""

    def compress(data: bytes) -> tuple[bytes, SeekTableEntry]:
        frame = compress_frame(data, level)
        return frame, SeekTableEntry(len(frame), len(data))

    def frames() -> Iterator[bytes]:
        at = start
        while True:
            prefetch(source, at, 2 * _READ * frame_size)
            data = read_up_to(source, at, _READ * frame_size)
            at += len(data)
            for offset in range(0, len(data), frame_size):
                yield data[offset : offset + frame_size]
            if len(data) < _READ * frame_size:
                return

    pending: deque[Future[tuple[bytes, SeekTableEntry]]] = deque()
    failure: CorruptImage | SourceError | None = None
    coming = from_source(frames())
    with ThreadPoolExecutor(threads, thread_name_prefix="zstd") as pool:
        while True:
            try:
                data = next(coming, None)
            except (CorruptImage, SourceError) as error:  # data that was read before is written first
                failure = error
                break
            if data is None:
                break
            pending.append(pool.submit(compress, data))
            if len(pending) > 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    if failure is not None:
        raise failure
