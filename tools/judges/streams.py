"""Compressed streams: xz, gzip and bzip2, judged by the programs of those names."""

from __future__ import annotations

import functools
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tools.judges import content
from tools.judges.comparison import Case, Difference, Explanation, Reading, Sample, digest
from tools.judges.programs import make, run
from vmvisor_image import CorruptImage, LimitExceeded, verify
from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.compressions.peel import peel
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.streams.sources import FileSource

_FILTERS: Final = (
    ("--lzma2=preset=0",),
    ("--lzma2=preset=6,lc=4,pb=0",),
    ("--delta=dist=4", "--lzma2=preset=1"),
    ("--x86", "--lzma2=preset=0"),
    ("--arm", "--lzma2=dict=4KiB"),
    ("--ia64", "--delta=dist=1", "--lzma2=preset=0"),
)


def write_xz(rng: random.Random, folder: Path) -> Sample:
    """One to three streams of blocks of any size, with any check and filters, and padding between them."""
    found, whole, told = b"", b"", []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = _data(rng)
        options = [f"--check={rng.choice(('none', 'crc32', 'crc64', 'sha256'))}", *rng.choice(_FILTERS)]
        options += [f"-T{rng.choice((1, 1, 2))}"]
        if rng.random() < 0.6:
            options += [f"--block-size={rng.choice((1000, 4096, 10_000, 65_536))}"]
        found += make("xz", "-c", *options, stdin=data)
        if rng.random() < 0.3:
            found += bytes(4 * rng.randrange(1, 5))
        whole += data
        told.append(" ".join(options))
    return _sample(folder / "stream.xz", found, whole, "; ".join(f"xz {each}" for each in told), repair_xz)


def write_gzip(rng: random.Random, folder: Path) -> Sample:
    """One to three members, with and without a name."""
    return _simple(rng, folder, "gzip", ("-1", "-6", "-9"), "gz")


def write_bzip2(rng: random.Random, folder: Path) -> Sample:
    """One to three streams."""
    return _simple(rng, folder, "bzip2", ("-1", "-9"), "bz2")


def _simple(rng: random.Random, folder: Path, tool: str, levels: tuple[str, ...], suffix: str) -> Sample:
    found, whole, told = b"", b"", []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = _data(rng)
        level = rng.choice(levels)
        if tool == "gzip" and rng.random() < 0.5:
            path = folder / content.name(rng, 40)
            path.write_bytes(data)
            found += make(tool, "-c", level, "--", path)
        else:
            found += make(tool, "-c", level, stdin=data)
        whole += data
        told.append(f"{tool} {level}")
    return _sample(folder / f"stream.{suffix}", found, whole, "; ".join(told))


def _data(rng: random.Random) -> bytes:
    """Data that is nothing else that the library would go on to open."""
    return b"-" + content.file_content(rng, 120_000)


def _sample(
    path: Path, data: bytes, whole: bytes, how: str, repair: Callable[[bytearray], None] | None = None
) -> Sample:
    path.write_bytes(data)
    size = len(data)
    places = ((0, 24), (0, min(64, size)), (max(size - 12, 0), size), (max(size - 80, 0), size))
    return Sample(path, places, {"": digest(whole)}, how, repair)


def repair_xz(data: bytearray) -> None:
    """Put the check sums of the last stream's index and footer, of the first header and its first block right."""
    if len(data) < 36:
        return
    data[8:12] = zlib.crc32(data[6:8]).to_bytes(4, "little")
    length = (data[12] + 1) * 4
    if data[12] and 12 + length <= len(data):
        data[12 + length - 4 : 12 + length] = zlib.crc32(data[12 : 12 + length - 4]).to_bytes(4, "little")
    end = len(data) - 12
    backward = (int.from_bytes(data[end + 4 : end + 8], "little") + 1) * 4
    if backward + 12 <= end:
        data[end - 4 : end] = zlib.crc32(data[end - backward : end - 4]).to_bytes(4, "little")
    data[end : end + 4] = zlib.crc32(data[end + 4 : end + 10]).to_bytes(4, "little")


def judged(tool: str, path: Path, folder: Path) -> dict[str, Reading]:  # noqa: ARG001  # as every kind
    """What the program gives and says."""
    done = run(tool, "-dc", "--", path)
    if done.complaint:
        return {tool: Reading({}, done.complaint, start=done.output)}
    return {tool: Reading({"": digest(done.output)}, "", done.errors, done.output)}


def ours(path: Path) -> Reading:
    """What is decoded up to the first damage, and what `verify` says of the layer."""
    source = FileSource(path)
    try:
        layers = peel(source, path.name, LayerOptions(threads=1))
        decoded: ReadAt = layers[0].source if layers else source
        start, failure = _read(decoded)
    except (CorruptImage, LimitExceeded) as error:
        return Reading({}, f"{type(error).__name__}: {error}")
    finally:
        source.close()
    if not layers:
        return Reading({}, "it is not recognised")
    try:
        report = verify(path, threads=1)
    except (CorruptImage, LimitExceeded) as error:
        return Reading({}, f"{type(error).__name__}: {error}", start=start)
    found = [str(problem) for layer in report.layers[:1] for problem in layer.problems]
    found += [bad.message for bad in report.bad_ranges]
    if failure and not found:
        return Reading({"": digest(start)}, start=start)  # an error that verify does not tell of
    return Reading({} if failure else {"": digest(start)}, " | ".join(found), start=start)


def _read(source: ReadAt) -> tuple[bytes, str]:
    found = b""
    try:
        while piece := read_up_to(source, len(found), 4096):
            found += piece
    except CorruptImage as error:
        while True:  # byte by byte up to the damage
            try:
                piece = source.read_at(len(found), 1)
            except CorruptImage:
                return found, str(error)
            found += piece
    return found, ""


KINDS: Final = {
    "xz": (write_xz, functools.partial(judged, "xz"), ours),
    "gzip": (write_gzip, functools.partial(judged, "gzip"), ours),
    "bzip2": (write_bzip2, functools.partial(judged, "bzip2"), ours),
}


def _bzip2_passes_over(case: Case, difference: Difference) -> bool:  # noqa: ARG001  # as every explanation
    told = ("bytes follow the last stream", "not bzip2 (expected 'BZh1' to 'BZh9'")
    return "trailing garbage after EOF ignored" in case.said.warning and any(
        each in case.ours.complaint for each in told
    )


EXPLANATIONS: Final[dict[str, tuple[Explanation, ...]]] = {
    "xz": (),
    "gzip": (),
    "bzip2": (
        Explanation(
            "what follows a stream",
            ("called unsound",),
            _bzip2_passes_over,
            "bzip2 ends with 0 where what follows a stream is none, and warns; it may be the next stream, damaged in"
            " its first four bytes, so the library tells of a problem",
        ),
    ),
}
