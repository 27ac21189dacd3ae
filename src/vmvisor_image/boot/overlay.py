"""A boot module made from a directory: the user's drivers or settings, without changing the image."""

from __future__ import annotations

import dataclasses
import os
import re
import stat
import tarfile
import zlib
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Final

from vmvisor_image.archives.archive import Archive
from vmvisor_image.archives.member import ArchiveMember
from vmvisor_image.base.destination import from_source
from vmvisor_image.errors import CorruptImage, InvalidArgument
from vmvisor_image.schemas.tar import BLOCK, CHECKSUM, VISOR_MAGIC

_MAGIC: Final = slice(257, 265)
_CHUNK: Final = 1 << 20
_GZIP: Final = 16 + zlib.MAX_WBITS
_TAR_NAMES: Final = re.compile(r".+\.(tgz|t[0-9]{2})", re.IGNORECASE)
_VMTAR_NAMES: Final = re.compile(r".+\.(vgz|z|v[0-9]{2})", re.IGNORECASE)
_TYPES: Final = {"directory": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE}


def build_module(folder: str | os.PathLike[str], name: str, *, base: Archive | None = None) -> Iterator[bytes]:
    """Pieces of a module with the files of a directory: the same directory gives the same bytes.

    Everything belongs to root; permissions, times and symbolic links are those of the directory.

    Args:
        folder: Directory that becomes the root directory.
        name: Name of the module, which decides its format: ``.tgz`` or ``.t00`` for a compressed tar, ``.vgz``, ``.z``
            or ``.v00`` for a compressed vmtar.
        base: Module that it replaces, whose other files it keeps; None to leave them out.

    Raises:
        InvalidArgument: `folder` is not a directory or has an entry that no module can have, or `name` another suffix.
        SourceError: A file or directory in the folder can't be read.
    """
    is_vmtar = bool(_VMTAR_NAMES.fullmatch(name))
    if not is_vmtar and not _TAR_NAMES.fullmatch(name):
        raise InvalidArgument(f"a module's name ends in .tgz, .vgz, .z or .t00, .v00 and so on, not {name!r}")
    root = Path(folder)
    if not root.is_dir():
        raise InvalidArgument(f"{root} is not a directory")
    own = {path.relative_to(root).as_posix(): path for path in from_source(_walk(root))}
    return _compress(from_source(_archive(own, base, is_vmtar=is_vmtar)))


def _walk(folder: Path) -> Iterator[Path]:
    """Paths of everything below a directory, sorted; links are not followed."""
    for path in sorted(folder.iterdir()):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
            raise InvalidArgument(f"{path} is neither a file nor a folder nor a symbolic link")
        yield path
        if stat.S_ISDIR(mode):
            yield from _walk(path)


def _archive(own: dict[str, Path], base: Archive | None, *, is_vmtar: bool) -> Iterator[bytes]:
    for path, member in {} if base is None else base.tree.by_path.items():
        if path not in own and base is not None and base.tree.get(path) is member:
            yield from _kept(member, base, own, is_vmtar=is_vmtar)
    for path, source in own.items():
        yield from _added(path, source, is_vmtar=is_vmtar)
    yield bytes(2 * BLOCK)


def _kept(member: ArchiveMember, base: Archive, replaced: Container[str], *, is_vmtar: bool) -> Iterator[bytes]:
    if member.kind in ("device", "fifo"):
        raise CorruptImage(
            f"{member.path!r} is a {member.kind}, which can't be kept", structure="boot module", offset=member.offset
        )
    if member.kind == "hardlink" and (real := base.tree.real(member)) is not None:
        there = base.tree.by_path.get(member.target or "")
        if there is None or there.path in replaced or base.tree.real(there) is not real:
            member = dataclasses.replace(real, path=member.path)  # its target is replaced by something else
    info = tarfile.TarInfo(member.path)
    info.type = _TYPES.get(member.kind, tarfile.REGTYPE)
    info.size, info.mode, info.uid, info.gid = member.size, member.mode, member.owner, member.group
    info.linkname = member.target or ""
    info.mtime = 0 if member.modified is None else int(member.modified.timestamp())
    yield _header(info, is_vmtar=is_vmtar)
    if member.kind == "file":
        yield from base[member.path].chunks()
        yield bytes(-member.size % BLOCK)


def _added(path: str, source: Path, *, is_vmtar: bool) -> Iterator[bytes]:
    found = source.lstat()
    info = tarfile.TarInfo(path)
    info.mode, info.mtime = stat.S_IMODE(found.st_mode), int(found.st_mtime)
    if stat.S_ISDIR(found.st_mode):
        info.type = tarfile.DIRTYPE
        yield _header(info, is_vmtar=is_vmtar)
    elif stat.S_ISLNK(found.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.fspath(source.readlink())
        yield _header(info, is_vmtar=is_vmtar)
    else:
        info.size = found.st_size
        yield _header(info, is_vmtar=is_vmtar)
        left = found.st_size
        with source.open("rb") as file:
            while left and (data := file.read(min(_CHUNK, left))):
                left -= len(data)
                yield data
        if left:
            raise InvalidArgument(f"{source} became shorter while it was read")
        yield bytes(-found.st_size % BLOCK)


def _header(info: tarfile.TarInfo, *, is_vmtar: bool) -> bytes:
    blocks = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    if not is_vmtar:
        return blocks
    # With another magic: in every header of a long name, but not in the blocks of the name itself.
    parts = [blocks[at : at + BLOCK] for at in range(0, len(blocks), BLOCK)]
    return b"".join(_as_vmtar(part) if part[_MAGIC] == tarfile.GNU_MAGIC else part for part in parts)


def _as_vmtar(block: bytes) -> bytes:
    """Header with vmtar's magic. Its data offset stays 0: the data follows the header."""
    changed = bytearray(block)
    changed[_MAGIC] = VISOR_MAGIC
    changed[CHECKSUM] = b" " * 8
    changed[CHECKSUM] = b"%06o\0 " % sum(changed)
    return bytes(changed)


def _compress(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Pieces of gzip data, without a name or a time, so that the same content gives the same bytes."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, _GZIP)
    for piece in pieces:
        if data := compressor.compress(piece):
            yield data
    yield compressor.flush()
