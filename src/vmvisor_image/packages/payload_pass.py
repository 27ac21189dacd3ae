"""One pass over a boot module or payload, which feeds every taker: its checksums and what its signature covers."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from vmvisor_image.compressions.layer import LayerOptions
from vmvisor_image.compressions.peel import peel
from vmvisor_image.compressions.signed import LONGEST_TRAILER, ModuleSignature, find_signature
from vmvisor_image.errors import Problem
from vmvisor_image.streams.reading import meter_of
from vmvisor_image.streams.source import COPY_CHUNK, ReadAt, Source
from vmvisor_image.streams.views import View

_KNOWN: Final = frozenset({"md5", "sha1", "sha256", "sha384", "sha512"})
_FORMS: Final = (None, "gunzip1", "gunzip")


class _Taker(Protocol):
    def update(self, data: bytes, /) -> object: ...


@dataclass(frozen=True, slots=True)
class PayloadHashes:
    """What one pass over a payload found."""

    checksums: Mapping[str | None, Mapping[str, str]]
    """Hashes in hexadecimal, by the form of the payload (`PayloadChecksum.process`), then by algorithm."""
    signature: ModuleSignature | None
    """Trailer of a signed module; None without one."""
    signed: Mapping[str, bytes]
    """Digests of what the signature covers, by algorithm; empty without a signature."""
    problems: tuple[Problem, ...] = ()
    """Faults of its compressions, such as bytes behind their end, which are in no decoded content."""


def hash_payload(
    file: ReadAt,
    wanted: Mapping[str | None, Collection[str]],
    signed: Collection[str] = (),
    *,
    finds_signature: bool = False,
) -> PayloadHashes:
    """Hashes of a payload in all its forms, read and decoded once, in memory that does not grow with it.

    Only a module that is compressed twice and longer than the decoded data that is kept is decoded again on the
    outside, as its trailer has to be found first.

    Args:
        file: The payload, with its compression.
        wanted: Names of algorithms by the form: None as stored, "gunzip1" without the outermost compression, "gunzip"
            without any. Those that are not known are left out.
        signed: Names of algorithms for what the signature covers.
        finds_signature: Whether to look for a signature, for which the payload is decoded.

    Raises:
        CorruptImage: It can't be decoded.
    """

    def hashes_of(process: str | None) -> dict[str, hashlib._Hash]:
        return {name: hashlib.new(name) for name in _KNOWN.intersection(wanted.get(process, ()))}

    hashes: dict[str | None, dict[str, hashlib._Hash]] = {None: hashes_of(None), "gunzip1": hashes_of("gunzip1")}
    covered = _Covered(signed)
    stored = _Tap(file, hashes[None].values())
    taps = [stored]

    def tapped(source: Source) -> Source:
        takers: list[_Taker] = []
        if len(taps) == 1:
            takers += [*hashes["gunzip1"].values(), *([covered] if signed else ())]
        else:
            taps[-1].takers = [each for each in taps[-1].takers if each not in hashes["gunzip"].values()]
        hashes["gunzip"] = hashes_of("gunzip")  # anew: the start of the layer around this one was read already
        taps.append(_Tap(source, [*takers, *hashes["gunzip"].values()]))
        return taps[-1]

    if finds_signature or wanted.keys() - {None}:
        peel(stored, None, LayerOptions(meter=meter_of(file)), tapped)
        if len(taps) == 1:  # it is not compressed: all forms are the same
            tapped(stored)
    for tap in reversed(taps):  # the innermost pulls the bytes through all others
        tap.drain()
    signature = find_signature(taps[1]) if finds_signature else None
    return PayloadHashes(
        {
            process: {name: each.hexdigest() for name, each in of.items()}
            for process, of in hashes.items()
            if process in wanted
        },
        signature,
        {} if signature is None else covered.digests(signature),
        tuple(dict.fromkeys(problem for tap in taps[1:] for problem in tap.problems)),
    )


class _Tap(View):
    """A source whose bytes, when they are first read in order, are also given to others; for one thread."""

    def __init__(self, source: ReadAt, takers: Iterable[_Taker]) -> None:
        super().__init__(source)
        self.takers = list(takers)
        self._given = 0
        """Number of bytes given to the takers."""

    def read_at(self, offset: int, length: int) -> bytes:
        """See `ReadAt.read_at`."""
        return self._noted(offset, super().read_at(offset, length))

    def read_up_to(self, offset: int, length: int) -> bytes:
        """See `Source.read_up_to`."""
        return self._noted(offset, super().read_up_to(offset, length))

    def drain(self) -> None:
        """Read the bytes that nobody read yet, up to the end."""
        while self.read_up_to(self._given, COPY_CHUNK):
            pass

    def _noted(self, offset: int, data: bytes) -> bytes:
        if offset <= self._given < offset + len(data):
            new = data[self._given - offset :]
            self._given += len(new)
            for take in self.takers:
                take.update(new)
        return data


class _Covered:
    """Digests of what a trailer covers, which is known only at the end: the last bytes are held back until then."""

    def __init__(self, names: Collection[str]) -> None:
        self._hashes = {name: hashlib.new(name) for name in names}
        self._held = b""
        self._size = 0

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        self._size += len(data)
        held = self._held + data
        cut = max(0, len(held) - LONGEST_TRAILER)
        for each in self._hashes.values():
            each.update(memoryview(held)[:cut])
        self._held = held[cut:]

    def digests(self, signature: ModuleSignature) -> dict[str, bytes]:
        """Digests of the bytes before the trailer and its schema; source: esx-boot, mboot/secure.c."""
        rest = self._held[: signature.offset - (self._size - len(self._held))]
        for each in self._hashes.values():
            each.update(rest)
            each.update(signature.schema.to_bytes(4, "little"))
        return {name: each.digest() for name, each in self._hashes.items()}
