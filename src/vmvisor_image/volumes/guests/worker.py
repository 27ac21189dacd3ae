"""Program of the process that reads a guest's file system: it runs pytsk3, and gets the bytes of the image by a pipe.

It is run by its path, with the standard library alone, and imports nothing of this library. A message is a frame: the
length of its JSON and of the bytes behind it, then both. The other side sends requests, each of which is answered;
before its answer, this side may ask for bytes of the image any number of times.

Source of the format of NTFS: the documentation of Linux-NTFS, "File Record", "Attribute Header", "$ATTRIBUTE_LIST",
"$INDEX_ROOT", "$INDEX_ALLOCATION", "INDX" and "Fixup" (https://flatcap.github.io/linux-ntfs/ntfs/).
"""

from __future__ import annotations

import codecs
import contextlib
import faulthandler
import importlib.util
import json
import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

_LENGTHS: Final = struct.Struct(">II")
_LARGEST_FRAME: Final = 64 << 20
_BATCH: Final = 1000
"""Most entries of a directory in one answer."""
_LARGEST_INDEX: Final = 256 << 20
"""Most bytes of an NTFS directory that are read."""
_LONGEST_LINK: Final = 4096
"""Most bytes of a symbolic link's target, and of a reparse point."""
_CODES: Final = {1: "file", 2: "directory", 3: "pipe", 4: "device", 5: "device", 6: "link", 8: "socket"}
"""Kinds of entries by TSK_FS_META_TYPE_ENUM; others are made up by The Sleuth Kit and are left out."""
_ALLOCATED: Final = 1
"""Flag of a name or of metadata that is in use."""
_RESIDENT, _COMPRESSED, _ENCRYPTED = 0x04, 0x10, 0x20
"""Flags of an attribute."""
_FILLER, _SPARSE = 0x01, 0x02
"""Flags of a run of blocks."""
_UNIX_DATA, _NTFS_DATA, _HFS_DATA, _HFS_RESOURCE = 1, 128, 4352, 4353
_NTFS_LIST, _NTFS_INDEX_ROOT, _NTFS_INDEX, _NTFS_BITMAP, _NTFS_REPARSE = 32, 144, 160, 176, 192
"""Types of attributes."""
_DOS_NAME: Final = 2
_TORN: Final = ("", 0)
"""Stands for the entries that are lost with a damaged part of an index."""
_FAT_FIRST: Final = 3
"""Number that The Sleuth Kit gives the first entry of 32 bytes behind the start of exFAT's clusters."""
_SYMBOLIC_LINK, _MOUNT_POINT = 0xA000000C, 0xA0000003
"""Tags of reparse points that are links."""
NOT_HERE: Final = {0x80000017: "compressed by Windows (WOF)", 0x80000013: "deduplicated by Windows"}
"""Tags of reparse points of files whose content is not in their data."""
_UNREADABLE: Final = (OSError, RuntimeError)
"""Errors of pytsk3; the second one is where the image can't be read."""
_DAMAGED: Final = "the image can't be read there"
BROKEN: Final = 3
"""Exit status after an error of this program; that of a time limit is 1."""
_DEVICE: Final = os.devnull


class Pipe(Protocol):
    """End of a pipe, unbuffered."""

    def read(self, size: int, /) -> bytes | None:
        """At most `size` bytes; empty where the other end is closed."""
        ...

    def write(self, data: memoryview, /) -> int | None:
        """Number of bytes that were written."""
        ...


def send(pipe: Pipe, message: Any, data: bytes = b"") -> None:
    """Write a frame."""
    text = json.dumps(message, separators=(",", ":")).encode()
    for part in (_LENGTHS.pack(len(text), len(data)) + text, data):
        view = memoryview(part)
        while view:
            view = view[pipe.write(view) or 0 :]


def receive(pipe: Pipe) -> tuple[Any, bytes]:
    """The next frame.

    Raises:
        EOFError: The other end is closed.
        ValueError: It is not a frame.
    """
    text, data = _LENGTHS.unpack(_exactly(pipe, _LENGTHS.size))
    if max(text, data) > _LARGEST_FRAME:
        raise ValueError("a frame is too long")
    return json.loads(_exactly(pipe, text)), _exactly(pipe, data)


def _exactly(pipe: Pipe, size: int) -> bytes:
    parts = []
    while size:
        part = pipe.read(size)
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class Budget:
    """Time that a request may take, without what passes while the other side reads the image."""

    def __init__(self) -> None:
        """Without a limit so far."""
        self._left = 0.0
        self._since = 0.0

    def begin(self, seconds: float) -> None:
        """End the process, wherever it is, after that time; in C, too."""
        self._left = seconds
        self.go_on()

    def pause(self) -> None:
        """Let the other side take its time."""
        faulthandler.cancel_dump_traceback_later()
        self._left -= time.monotonic() - self._since

    def go_on(self) -> None:
        """Count again."""
        self._since = time.monotonic()
        faulthandler.dump_traceback_later(max(self._left, 0.001), exit=True, file=2)


class Reader:
    """A file system, read with pytsk3."""

    def __init__(self, tsk: Any, size: int, kind: str, fetch: Callable[[int, int], bytes]) -> None:
        """Open it.

        Args:
            tsk: The module pytsk3.
            size: Bytes of the volume.
            kind: Name of its type in pytsk3.
            fetch: Function that gives bytes of the volume, by offset and length.
        """

        class Volume(tsk.Img_Info):  # type: ignore[misc]  # pytsk3 has no types
            def __init__(self) -> None:
                super().__init__(url="", type=tsk.TSK_IMG_TYPE_EXTERNAL)

            def read(self, offset: int, length: int) -> bytes:
                return fetch(offset, max(0, min(length, size - offset)))

            def get_size(self) -> int:
                return size

            def close(self) -> None:
                """Nothing is open."""

        self._fetch = fetch
        self._image = Volume()
        self._fs = tsk.FS_Info(self._image, offset=0, type=getattr(tsk, kind))
        self._is_ntfs = kind == "TSK_FS_TYPE_NTFS"
        self._is_exfat = kind == "TSK_FS_TYPE_EXFAT"
        self._has_streams = self._is_ntfs or kind == "TSK_FS_TYPE_HFS"
        self._directory: tuple[int, Iterator[list[Any]]] | None = None
        self._file: tuple[int, Any] | None = None

    def facts(self) -> dict[str, int]:
        """What the other side has to know."""
        info = self._fs.info
        return {"root": int(info.root_inum), "block_size": int(info.block_size), "blocks": int(info.block_count)}

    def entries(self, number: int, at: int) -> dict[str, Any]:
        """Entries of a directory from the one of number `at` on, which is 0 or where the last answer ended."""
        if at == 0 or self._directory is None or self._directory[0] != number:
            self._directory = number, (self._ntfs_entries if self._is_ntfs else self._tsk_entries)(number)
            for _ in range(at):
                next(self._directory[1], None)
        found: list[list[Any]] = []
        for entry in self._directory[1]:
            found.append(entry)
            if len(found) == _BATCH:
                return {"entries": found, "more": True}
        self._directory = None
        return {"entries": found, "more": False}

    def content(self, number: int, kind: int, name: int) -> dict[str, Any]:
        """Size and place of an attribute; kind 0 is that of a file's data."""
        file = self._open(number)
        for attribute in file:
            info = attribute.info
            its_kind, its_name = int(info.type), int(info.id)
            is_data = its_kind in (_UNIX_DATA, _NTFS_DATA, _HFS_DATA) and not (self._is_ntfs and info.name)
            if is_data if kind == 0 else (its_kind, its_name) == (kind, name):
                flags = int(info.flags)
                runs = [
                    [int(run.offset), int(run.len), None if int(run.flags) & (_FILLER | _SPARSE) else int(run.addr)]
                    for run in attribute
                ]
                return {
                    "size": int(info.size),
                    "written": self._written(file, number, info),
                    "resident": bool(flags & _RESIDENT),
                    "compressed": bool(flags & _COMPRESSED),
                    "encrypted": bool(flags & _ENCRYPTED),
                    "runs": runs,
                    "not_here": NOT_HERE.get(self._reparse_tag(file)) if kind == 0 else None,
                }
        return {
            "size": 0,
            "written": 0,
            "resident": True,
            "compressed": False,
            "encrypted": False,
            "runs": [],
            "not_here": None,
        }

    def read(self, number: int, kind: int, name: int, offset: int, length: int) -> bytes:
        """Bytes of an attribute."""
        file = self._open(number)
        data: bytes = file.read_random(offset, length, kind, name) if kind else file.read_random(offset, length)
        return data

    def _written(self, file: Any, number: int, info: Any) -> int | None:
        """Bytes of an attribute that were ever written, behind which it is zeros; None where that is not found."""
        size = int(info.size)
        if self._is_exfat:
            # "ValidDataLength" of the entry behind the numbered one (Microsoft, exFAT specification, 7.6.5).
            boot = self._fetch(0, 512)
            heap = int.from_bytes(boot[88:92], "little") << boot[108]
            stream = self._fetch(heap + (number - _FAT_FIRST + 1) * 32, 32)
            return min(size, int.from_bytes(stream[8:16], "little")) if stream[:1] == b"\xc0" else size
        if not self._is_ntfs or int(info.flags) & _RESIDENT:
            return size
        name = (info.name or b"").decode("utf-8", "replace").encode("utf-16-le")
        for record in self._records(file, number, name):
            for header in _attributes(record, _NTFS_DATA, name):
                if len(header) >= 64 and header[8] and not any(header[16:24]):  # not resident, and the first part
                    return min(size, int.from_bytes(header[56:64], "little"))
        return None

    def _records(self, file: Any, number: int, name: bytes) -> Iterator[bytes]:
        """Records of the master file table in which the data of that name may begin."""
        boot = self._fetch(0, 512)
        clusters = int.from_bytes(boot[64:65], "little", signed=True)
        size = 1 << -clusters if clusters < 0 else clusters * boot[13] * int.from_bytes(boot[11:13], "little")
        if not 512 <= size <= 1 << 16:
            return
        numbers = [number]
        for attribute in file:
            if int(attribute.info.type) == _NTFS_LIST:
                length = min(int(attribute.info.size), 1 << 18)
                listed = file.read_random(0, length, attribute.info.type, int(attribute.info.id))
                numbers += _listed(listed, _NTFS_DATA, name)
        table = self._fs.open_meta(inode=0)
        for each in dict.fromkeys(numbers):
            yield _without_fixups(table.read_random(each * size, size), b"FILE")

    def forget(self) -> None:
        """Begin anew with whatever is asked next."""
        self._directory = self._file = None

    def _open(self, number: int) -> Any:
        if self._file is None or self._file[0] != number:
            self._file = number, self._fs.open_meta(inode=number)
        return self._file[1]

    def _tsk_entries(self, number: int) -> Iterator[list[Any]]:
        """Entries of a directory as The Sleuth Kit lists them."""
        opened = self._fs.open_dir(inode=number)
        directory = iter(opened)
        for _ in range(int(opened.size) + 1):
            try:
                file = next(directory, None)
            except _UNREADABLE as error:
                yield ["", 0, "unreadable", _reason(error)]
                continue
            if file is None:
                return
            name = file.info.name
            text = name.name or b""
            if int(name.flags) & _ALLOCATED and text not in (b"", b".", b".."):
                yield from self._safe_entry(text.decode("utf-8", "surrogateescape"), file, int(name.meta_addr))

    def _ntfs_entries(self, number: int) -> Iterator[list[Any]]:
        """Entries of an NTFS directory by its index: listing it as the others would read the whole MFT first."""
        index = _index(self._fs.open_meta(inode=number))
        seen: set[tuple[str, int]] = set()
        while True:
            try:
                found = next(index, None)
            except _UNREADABLE as error:
                yield ["", 0, "unreadable", _reason(error)]
                return
            if found is None:
                return
            if found in seen or found[0] == ".":
                continue
            seen.add(found)
            name, reference = found
            if found == _TORN:
                yield ["", 0, "unreadable", "a block of the index is damaged"]
                continue
            inode, sequence = reference & 0xFFFFFFFFFFFF, reference >> 48
            try:
                file = self._fs.open_meta(inode=inode)
            except _UNREADABLE as error:
                yield [name, inode, "unreadable", _reason(error)]
                continue
            if file.info.meta is None or int(file.info.meta.seq) == sequence:
                yield from self._safe_entry(name, file, inode)
            else:
                yield [name, inode, "unreadable", "the index names a file that was deleted"]

    def _safe_entry(self, name: str, file: Any, number: int) -> Iterator[list[Any]]:
        """Entry of a file; one that can't be read is an entry of that kind."""
        try:
            yield from [*self._entry(name, file, number)]
        except _UNREADABLE as error:
            yield [name, number, "unreadable", _reason(error)]

    def _entry(self, name: str, file: Any, number: int) -> Iterator[list[Any]]:
        meta = file.info.meta
        if meta is None:
            yield [name, number, "unreadable", "its metadata can't be read"]
            return
        code = _CODES.get(int(meta.type))
        if code is None or not int(meta.flags) & _ALLOCATED:
            return
        times = [
            [int(getattr(meta, each)), int(getattr(meta, f"{each}_nano"))]
            for each in ("mtime", "atime", "ctime", "crtime")
        ]
        owner = [int(meta.mode), int(meta.uid), int(meta.gid), int(meta.nlink)]
        link = self._target(file).decode("utf-8", "surrogateescape") if code == "link" else ""
        streams: list[list[Any]] = []
        if self._has_streams:
            streams, tag = self._streams(file)
            if tag in (_SYMBOLIC_LINK, _MOUNT_POINT):
                code, link = "link", self._reparse_target(file, tag)
        yield [name, number, code, int(meta.size), times, owner, link, streams]

    def _target(self, file: Any) -> bytes:
        """Target of a symbolic link; The Sleuth Kit leaves out those of ext4 that are in a block of their own."""
        meta = file.info.meta
        known: bytes = (meta.link or b"")[:_LONGEST_LINK]
        size = min(int(meta.size), _LONGEST_LINK)
        if known or not size:
            return known
        try:
            data: bytes = file.read_random(0, size)
        except _UNREADABLE:
            return b""
        return data

    def _streams(self, file: Any) -> tuple[list[list[Any]], int]:
        """Streams of a file besides its data; and the tag of its reparse point, 0 without one."""
        streams, tag = [], 0
        for attribute in file:
            info = attribute.info
            kind, size = int(info.type), int(info.size)
            if kind == _NTFS_REPARSE:
                tag = self._reparse_tag(file)
            if (kind == _NTFS_DATA and info.name) or (kind == _HFS_RESOURCE and size):
                name = "rsrc" if kind == _HFS_RESOURCE else info.name.decode("utf-8", "surrogateescape")
                streams.append([name, kind, int(info.id), size])
        return streams, tag

    def _reparse_tag(self, file: Any) -> int:
        """Tag of a file's reparse point; 0 without one."""
        data = self._reparse_point(file) if self._is_ntfs else b""
        return int.from_bytes(data[:4], "little")

    def _reparse_target(self, file: Any, tag: int) -> str:
        """Target of a link (Microsoft, [MS-FSCC] 2.1.2.4 and 2.1.2.5); empty where it makes no sense."""
        data = self._reparse_point(file)
        names = data[20 if tag == _SYMBOLIC_LINK else 16 :]
        if len(data) < 16:
            return ""
        substitute, length, print_at, print_length = struct.unpack_from("<HHHH", data, 8)
        at, size = (print_at, print_length) if print_length else (substitute, length)
        return names[at : at + size].decode("utf-16-le", "replace")

    def _reparse_point(self, file: Any) -> bytes:
        for attribute in file:
            if int(attribute.info.type) == _NTFS_REPARSE:
                data: bytes = file.read_random(
                    0, min(int(attribute.info.size), 16 << 10), attribute.info.type, int(attribute.info.id)
                )
                return data
        return b""


def _reason(error: Exception) -> str:
    """Text of an error of pytsk3, which repeats that of an error in reading the image."""
    text = str(error) or type(error).__name__
    return _DAMAGED if _DAMAGED in text else text


def _index(directory: Any) -> Iterator[tuple[str, int]]:
    """Names in an NTFS directory, and the references to their files, in the order of the index's blocks.

    `_TORN` stands for the names in a block that is damaged.
    """
    parts: dict[int, tuple[Any, int, int]] = {}
    for attribute in directory:
        info = attribute.info
        if info.name == b"$I30" and int(info.type) in (_NTFS_INDEX_ROOT, _NTFS_INDEX, _NTFS_BITMAP):
            parts[int(info.type)] = info.type, int(info.id), int(info.size)

    def read(kind: int, offset: int, length: int) -> bytes:
        number, name, size = parts[kind]
        length = min(length, size - offset)
        data: bytes = directory.read_random(offset, length, number, name) if length > 0 else b""
        return data

    if _NTFS_INDEX_ROOT not in parts:
        raise OSError("the directory has no index")
    root = read(_NTFS_INDEX_ROOT, 0, 1 << 16)
    if len(root) < 32:
        raise OSError("the index of the directory is too short")
    yield from _index_entries(root, 16)
    block = int.from_bytes(root[8:12], "little")
    if _NTFS_INDEX not in parts:
        return
    if not 512 <= block <= 1 << 16 or block % 512:
        raise OSError(f"the index of the directory has blocks of {block} bytes")
    used = read(_NTFS_BITMAP, 0, 1 << 20) if _NTFS_BITMAP in parts else b""
    for number in range(min(parts[_NTFS_INDEX][2], _LARGEST_INDEX) // block):
        if (used[number // 8 : number // 8 + 1] or b"\0")[0] >> number % 8 & 1:
            yield from _index_entries(_block(read, number * block, block), 24)


def _block(read: Callable[[int, int, int], bytes], offset: int, size: int) -> bytes:
    """Block of an index; empty where it can't be read, or is damaged."""
    try:
        return _without_fixups(read(_NTFS_INDEX, offset, size), b"INDX")
    except _UNREADABLE:
        return b""


def _attributes(record: bytes, kind: int, name: bytes) -> Iterator[bytes]:
    """Attributes of a type and name in a record of the master file table."""
    at = int.from_bytes(record[20:22], "little")
    while at + 24 <= len(record):
        found, length, _, characters, name_at = struct.unpack_from("<IIBBH", record, at)
        if length < 24:
            return
        if found == kind and record[at + name_at : at + name_at + 2 * characters] == name:
            yield record[at : at + length]
        at += length


def _listed(data: bytes, kind: int, name: bytes) -> Iterator[int]:
    """Numbers of the records in which a list of attributes says that one begins."""
    at = 0
    while at + 26 <= len(data):
        found, length, characters, name_at, first, reference = struct.unpack_from("<IHBBQQ", data, at)
        if length < 26:
            return
        if found == kind and first == 0 and data[at + name_at : at + name_at + 2 * characters] == name:
            yield reference & 0xFFFFFFFFFFFF
        at += length


def _without_fixups(block: bytes, magic: bytes) -> bytes:
    """Block of an index or record with the ends of its sectors in place; empty where it is none, or is torn."""
    if block[:4] != magic:
        return b""
    at, count = struct.unpack_from("<HH", block, 4)
    table = block[at : at + 2 * count]
    mended = bytearray(block)
    if len(table) != 2 * count or count != len(block) // 512 + 1:
        return b""
    for sector in range(1, count):
        end = sector * 512
        if block[end - 2 : end] != table[:2]:
            return b""
        mended[end - 2 : end] = table[2 * sector : 2 * sector + 2]
    return bytes(mended)


def _index_entries(node: bytes, header: int) -> Iterator[tuple[str, int]]:
    """Names and references in a node of an index, whose header is at byte `header`; `_TORN` where it breaks off."""
    if len(node) < header + 16:
        yield _TORN
        return
    first, size = struct.unpack_from("<II", node, header)
    at, end = header + first, min(header + size, len(node))
    while at + 16 <= end:
        reference, length, key, flags = struct.unpack_from("<QHHH", node, at)
        if flags & 2:  # the last one has no name
            return
        if length < 16:
            break
        if key >= 66 and at + 16 + key <= end:
            characters, space = node[at + 80], node[at + 81]
            name = node[at + 82 : at + 82 + 2 * characters].decode("utf-16-le", "surrogatepass")
            if space != _DOS_NAME:
                yield name, reference
        at += length
    yield _TORN


def _limit(memory: int) -> None:
    """Give up what is not needed: memory above the limit, files, cores. Only on Unix."""
    for encoding in ("utf-8", "utf-16-le"):
        codecs.lookup(encoding)  # no module can be imported later
    if sys.platform == "win32":
        return
    import resource

    limits = {"RLIMIT_AS": memory, "RLIMIT_CORE": 0, "RLIMIT_FSIZE": 0, "RLIMIT_NOFILE": 0}
    for name, most in limits.items():
        with contextlib.suppress(AttributeError, OSError, ValueError):  # not every system has or takes each
            resource.setrlimit(getattr(resource, name), (most, most))


def serve(requests: Pipe, answers: Pipe, budget: Budget, *, limit: Callable[[int], None] = _limit) -> None:
    """Answer requests until the other side closes its end."""

    def fetch(offset: int, length: int) -> bytes:
        budget.pause()
        send(answers, {"read": [offset, length]})
        message, data = receive(requests)
        budget.go_on()
        if message.get("failed"):
            raise OSError(_DAMAGED)
        return data

    reader: Reader | None = None
    while True:
        try:
            message, _ = receive(requests)
        except EOFError:
            return
        budget.begin(message["seconds"])
        name, *arguments = message["ask"]
        answer: Any = None
        data = b""
        try:
            if name == "open":
                module, size, kind, memory = arguments
                tsk = _load(module)
                limit(memory)
                reader = Reader(tsk, size, kind, fetch)
                answer = reader.facts()
            elif reader is not None and name == "read":
                data = reader.read(*arguments)
            elif reader is not None:
                answer = reader.entries(*arguments) if name == "list" else reader.content(*arguments)
            answered = {"answer": answer}
        except Exception as error:  # noqa: BLE001  # whatever it is, the next request may be answered
            answered = {"error": _reason(error)}
            if reader is not None:
                reader.forget()
        budget.pause()
        send(answers, answered, data)


def _load(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("pytsk3", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> int:
    """Serve by standard input and output, to which nothing else is written; see `serve` for the status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # that is for the other side to decide
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(_DEVICE, os.O_RDWR)
    for standard in (0, 1):  # what C prints is no answer
        os.dup2(nothing, standard)
    try:
        serve(requests, answers, Budget())
    except BrokenPipeError:
        return 0
    except Exception:  # noqa: BLE001  # the other side reports the status
        return BROKEN
    return 0


if __name__ == "__main__":
    sys.exit(main())
