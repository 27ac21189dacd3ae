"""The report of a verification, as values and as lines of text: the same input gives the same report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from vmvisor_image.base.shown import Shown
from vmvisor_image.compressions.signed import ModuleSignature
from vmvisor_image.disk.explanation import counted
from vmvisor_image.disk.tables.table import GptCheck, is_lost
from vmvisor_image.errors import Problem
from vmvisor_image.files.checksums import Checksum
from vmvisor_image.reports.origins import Origins
from vmvisor_image.volumes.figures import FatFigures, VmfsFigures

_TOLD_ONCE = {"told once": True}
"""Metadata of a field that `VerificationReport.to_dict` leaves out, as the report has it in another place."""

Hashes = tuple[tuple[str, str], ...]
"""Name and value in hexadecimal of each; empty where not all bytes could be read."""


_SHA256_DIGITS: Final = 64
"""Digits of SHA-256 in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes of the disk that belong neither to a partition nor to the partition table."""

    offset: int
    """First byte, from the start of the decoded disk."""
    length: int
    """Bytes."""
    nonzero: int
    """Number of them that are not zero."""


@dataclass(frozen=True, slots=True)
class Unused:
    """Bytes that belong to nothing."""

    bytes: int
    nonzero: int
    """Number of them that are not zero."""


@dataclass(frozen=True, slots=True)
class SignatureTrailer:
    """The trailer of a signed boot module. Its signature is checked only in `VerificationReport.origins`."""

    schema: int
    key_id: str | None
    """Identifier of the key that it was made with; None where the trailer does not name it."""
    offset: int
    """First byte of the trailer, from the start of the module, or of the decoded data of a gzip module."""
    length: int
    """Bytes of the trailer."""

    @classmethod
    def of(cls, found: ModuleSignature) -> SignatureTrailer:
        """Values of a trailer for a report."""
        return cls(found.schema, found.key_id, found.offset, found.length)


@dataclass(frozen=True, slots=True)
class FileCheck:
    """One file."""

    path: str
    """POSIX path from its volume's root."""
    size: int
    """Bytes."""
    offset: int | None
    """First byte, from the start of the decoded disk; None for an empty file, or where it can't be found."""
    hashes: Hashes
    is_gzip: bool
    """Whether it is gzip; its CRC and length were then checked."""
    signature: SignatureTrailer | None
    error: str | None
    """Description of its damage; None where it is sound."""


@dataclass(frozen=True, slots=True)
class LayerCheck:
    """One layer, read to its end."""

    kind: str
    name: str | None
    """Name of the file in it; None where it is not known."""
    size: int | None
    """Decoded bytes; None where damage hides the end."""
    counts: tuple[tuple[str, int], ...]
    """Number of parts whose checks were right, such as "blocks" and "streams"; includes those found after damage."""
    files: tuple[FileCheck, ...]
    """All files of a container (a CD, a tar, a zip), by their places in it; empty for other layers."""
    problems: tuple[Problem, ...]
    """Failed checks and other problems; offsets count in the encoded data of the layer."""


@dataclass(frozen=True, slots=True)
class PartitionCheck:
    """One partition."""

    number: int
    key: str
    """Name that commands take: its number, or ``@`` and its first byte; see `Partition.key`."""
    label: str | None
    kind: str
    start: int
    """First byte, from the start of the decoded disk."""
    size: int
    """Bytes."""
    files: tuple[FileCheck, ...]
    """Files in the order of their places on the disk, then of the tree."""
    slack: Unused | None
    """Bytes after the files' ends in their last clusters; FAT only."""
    free: Unused | None
    """Bytes in free clusters; FAT only."""
    tail: Unused | None
    """Bytes after the last cluster; FAT only."""
    content: Unused | None
    """All bytes of a partition whose files are not read; None for any other."""
    fat: FatFigures | None
    vmfs: VmfsFigures | None
    problems: tuple[Problem, ...]
    not_checked: tuple[str, ...] | None = field(default=None, repr=False, metadata=_TOLD_ONCE)
    """Parts of the volume that its check leaves out, in words; None for a volume without checksums of its files."""


@dataclass(frozen=True, slots=True)
class BadRange:
    """Bytes of the decoded disk that can't be read."""

    offset: int
    """First byte, from the start of the decoded disk; exact to 4096 bytes."""
    length: int | None
    """Bytes, exact to 4096; None where damage hides the disk's end: everything from the offset on is then lost.
    Readable parts in it are shorter than 4096 bytes, or than a 256th of the damage before them."""
    message: str
    files: tuple[str, ...]
    """Paths of the affected files, as in the manifest, in the order of their places."""


@dataclass(frozen=True, slots=True, repr=False)
class VerificationReport(Shown):
    """Result of `verify`; frozen, picklable, and with `to_dict` serialisable as JSON.

    It contains neither the time of the run nor a directory, so that the same input gives the same report anywhere.
    """

    name: str | None
    """Name of the image without its directory; None without one."""
    source_size: int
    """Bytes of the source."""
    source_hashes: Hashes
    """Hashes of the source as it is."""
    layers: tuple[LayerCheck, ...]
    """Layers, outermost first."""
    checksums: tuple[Checksum, ...]
    """Comparisons of members taken from a CD with the checksum files on it."""
    size: int | None
    """Bytes of the decoded disk; None where damage hides the end."""
    hashes: Hashes
    """Hashes of the decoded disk."""
    scheme: str
    """Kind of the partition table: "mbr", "gpt" or "none"."""
    gpt: tuple[GptCheck, ...]
    """CRCs of both copies of a GPT, the primary one first; empty for any other table."""
    gaps: tuple[Gap, ...]
    """Gaps outside of partitions, in disk order."""
    partitions: tuple[PartitionCheck, ...]
    """Partitions in disk order, without extended ones, which only contain others."""
    bad_ranges: tuple[BadRange, ...]
    """Unreadable ranges, in disk order."""
    problems: tuple[Problem, ...]
    """All problems, including those of layers and partitions, by place."""
    table_facts: tuple[tuple[str, str], ...] = ()
    """Remarks on the partition table that are not problems, by name."""
    layer_facts: tuple[tuple[str, str], ...] = ()
    """Remarks on the layers, and on the disks that the disk rests on, that are not problems, by name."""
    origins: Origins | None = None
    """Origin of the modules that it boots; None where there is neither an image database nor a certificate to go by."""

    @property
    def is_sound(self) -> bool:
        """Whether no problem was found in the checked parts; see `not_checked`."""
        return not self.problems

    @property
    def not_checked(self) -> tuple[str, ...]:
        """Parts of the image that can't be checked or are not, in words: `is_sound` says nothing about them."""
        found = [
            f"{layer.kind} around {layer.name or 'the disk'}: its reference counts and snapshots"
            for layer in self.layers
            if layer.kind == "qcow2"
        ]
        for partition in self.partitions:
            where = f"partition {partition.key}"
            if partition.content is not None and partition.kind != "empty":
                found.append(f"{where}: what is in it ({partition.kind}) is not known, and was only read")
            found += [f"{where}: {part}" for part in partition.not_checked or ()]
            if partition.files and partition.not_checked is None:
                found.append(f"{where}: {partition.kind} has no check sums of what is in files; only gzip ones have")
        signed = sum(file.signature is not None for partition in self.partitions for file in partition.files)
        if self.origins is not None:
            signed -= sum(module.is_signature_checked for module in self.origins.modules)
            found += self.origins.not_checked
        if signed > 0:
            found.append(f"the signatures of {counted(signed, 'module')}, which takes certificates of their keys")
        return tuple(found)

    def __repr__(self) -> str:
        verdict = "sound" if self.is_sound else counted(len(self.problems), "problem")
        counts = f"{counted(len(self.partitions), 'partition')}, {verdict}"
        return (
            f"<VerificationReport of {'an image' if self.name is None else repr(self.name)}: {self.scheme}, {counts}>"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings and numbers; hashes by their names."""
        plain: dict[str, Any] = _plain(self)
        return {**plain, "is_sound": self.is_sound, "not_checked": list(self.not_checked)}

    def lines(self, *, hash_digits: int = _SHA256_DIGITS) -> Iterator[str]:
        """Lines of the report in words; names are as they are in the image, including control characters.

        Args:
            hash_digits: Characters of the first hash of each file; what is left out of it becomes an ellipsis.
        """
        return _lines(self, hash_digits)

    def manifest(self) -> bytes:
        r"""List of the files as by ``sha256sum`` after each partition was extracted to a directory named by its key.

        One line for each, in the order of the report: the hash, two spaces, ``<key>/<path>``, in UTF-8. A name with
        a backslash, a newline or a carriage return is escaped as in GNU coreutils. Files that can't be read are left
        out, as in extraction.
        """
        lines = []
        for partition in self.partitions:
            for file in partition.files:
                value = dict(file.hashes).get("sha256")
                if value is not None:
                    lines.append(manifest_line(value, f"{partition.key}/{file.path}"))
        return b"".join(lines)


def manifest_line(value: str, path: str) -> bytes:
    """Line as by ``sha256sum``; a name with a backslash, a newline or a carriage return is escaped as by GNU's."""
    escaped = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "\\" if escaped != path else ""
    # Names of VMFS that are not UTF-8 have surrogates for their bytes; long names of FAT may have lone ones.
    try:
        return f"{mark}{value}  {escaped}\n".encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return f"{mark}{value}  {escaped}\n".encode("utf-8", "surrogatepass")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        found = {}
        for each in dataclasses.fields(value):
            if _TOLD_ONCE.keys() <= each.metadata.keys():
                continue
            item = getattr(value, each.name)
            pairs = each.name.endswith("hashes") or each.name == "counts"
            found[each.name] = dict(item) if pairs else _plain(item)
        return found
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _lines(report: VerificationReport, hash_digits: int) -> Iterator[str]:
    yield f"{report.name or 'image'}: {report.source_size} bytes"
    yield from _hashes(report.source_hashes, "  ")
    yield from _layers(report, hash_digits)
    for checksum in report.checksums:
        verdict = "right" if checksum.is_right else f"WRONG, it is {checksum.found}"
        yield f"  {checksum.listed_in}: {checksum.algorithm} of {checksum.path} {verdict}"
    size = "unknown size" if report.size is None else f"{report.size} bytes"
    yield f"disk: {size}, partition table: {'lost' if is_lost(report.problems) else report.scheme}"
    if report.layers:
        yield from _hashes(report.hashes, "  ")
    for copy in report.gpt:
        yield _gpt_copy(copy)
    for name, value in report.table_facts:
        yield f"  {name}: {value}"
    for gap in report.gaps:
        yield f"  no partition at byte {gap.offset:#x}: {gap.length} bytes, {gap.nonzero} not zero"
    for partition in report.partitions:
        yield from _partition(partition, hash_digits)
    for bad in report.bad_ranges:
        yield from _bad_range(bad)
    if report.origins is not None:
        yield from report.origins.lines()
    for text in report.not_checked:
        yield f"not checked: {text}"
    if not report.problems:
        yield f"no problem in what was checked: {_checked(report)}"
        return
    yield f"{counted(len(report.problems), 'problem')}:"
    for problem in report.problems:
        yield f"  {problem}"


def _checked(report: VerificationReport) -> str:
    """Parts of an image that were read and checked, in words."""
    files = [file for layer in report.layers for file in layer.files]
    files += [file for partition in report.partitions for file in partition.files]
    packed = sum(file.is_gzip for file in files)
    kinds = " in ".join(layer.kind for layer in reversed(report.layers))
    table = {"gpt": "both copies of the GPT", "mbr": "the master boot record"}.get(report.scheme)
    found = [
        f"{kinds}, decoded to the end" if kinds else "",
        table or "",
        f"the structures of {counted(len(report.partitions), 'partition')}" if report.partitions else "",
        f"{counted(len(files), 'file')} read whole" if files else "",
        f"the CRC of {counted(packed, 'gzip file')}" if packed else "",
        f"{counted(len(report.checksums), 'checksum')} beside the image" if report.checksums else "",
    ]
    return ", ".join(filter(None, found)) or "the disk, read whole"


def _hashes(values: Hashes, indent: str) -> Iterator[str]:
    for name, value in values:
        yield f"{indent}{name} {value}"


def _layers(report: VerificationReport, hash_digits: int) -> Iterator[str]:
    for layer in report.layers:
        yield _layer(layer)
        for file in layer.files:
            yield from _file(file, hash_digits)
    for name, value in report.layer_facts:
        yield f"  {name}: {value}"


def _layer(layer: LayerCheck) -> str:
    size = "no end found" if layer.size is None else f"{layer.size} bytes"
    counts = "".join(f", {count} {name}" for name, count in layer.counts)
    verdict = "sound" if not layer.problems else counted(len(layer.problems), "problem").upper()
    return f"  {layer.kind} around {layer.name or 'the disk'}: {size}{counts}: {verdict}"


def _gpt_copy(copy: GptCheck) -> str:
    if copy.header_crc is None or copy.entries_crc is None:
        return f"  {copy.which} GPT at byte {copy.offset:#x}: MISSING"
    pairs = (
        ("header", copy.header_crc, copy.header_crc_found),
        ("entries", copy.entries_crc, copy.entries_crc_found),
    )
    texts = [f"CRC of {name} {said:#010x} {'right' if said == found else 'WRONG'}" for name, said, found in pairs]
    return f"  {copy.which} GPT at byte {copy.offset:#x}: {', '.join(texts)}"


def _partition(partition: PartitionCheck, hash_digits: int) -> Iterator[str]:
    label = "" if partition.label is None else f" {partition.label}"
    yield f"partition {partition.key}{label} ({partition.kind}) at byte {partition.start:#x}: {partition.size} bytes"
    if partition.content is not None:
        yield f"  {partition.content.bytes} bytes read, {partition.content.nonzero} not zero"
    if partition.fat is not None:
        yield from _fat(partition.fat)
    unused = ((partition.slack, "slack"), (partition.free, "free"), (partition.tail, "behind the last cluster"))
    for amount, name in unused:
        if amount is not None:
            yield f"  {name}: {amount.bytes} bytes, {amount.nonzero} not zero"
    if partition.vmfs is not None:
        yield from _vmfs(partition.vmfs)
    for file in partition.files:
        yield from _file(file, hash_digits)


def _fat(fat: FatFigures) -> Iterator[str]:
    same = "the same" if not fat.differences else "DIFFERENT"
    yield f"  {fat.fat_copies} copies of the FAT of {fat.fat_size} bytes: {same if fat.fat_copies > 1 else 'only one'}"
    if fat.summary is not None:
        verdict = "agrees" if fat.summary_agrees else "DISAGREES"
        yield f"  FSInfo at byte {fat.summary.offset:#x}: {fat.summary.free_clusters} clusters free: {verdict}"
    yield (
        f"  {fat.clusters} clusters of {fat.cluster_size} bytes: {fat.used_clusters} used, {fat.free_clusters} free,"
        f" {fat.bad_clusters} bad, {fat.lost_clusters} lost ({fat.lost_clusters * fat.cluster_size} bytes) in"
        f" {fat.lost_chains} chains"
    )
    yield (
        f"  {len(fat.cross_links)} cross-links, {len(fat.long_chains)} chains too long, {len(fat.short_chains)} too"
        " short or broken"
    )
    for chain in fat.lost:
        yield f"    lost chain at byte {chain.offset:#x}: {chain.clusters} clusters"
    if fat.lost_chains > len(fat.lost):
        yield f"    and {fat.lost_chains - len(fat.lost)} lost chains more, which are not listed"


def _vmfs(vmfs: VmfsFigures) -> Iterator[str]:
    if vmfs.blocks is None:
        yield f"  file blocks of {vmfs.block_size} bytes: {vmfs.reached} in files; their bitmap is not read"
    else:
        yield (
            f"  {vmfs.blocks} file blocks of {vmfs.block_size} bytes: {vmfs.used} marked used, {vmfs.reached} in files,"
            f" {vmfs.lost} used by nothing, {vmfs.reached_free} in files and marked free"
        )
    for host in vmfs.hosts:
        yield f"  in use by host {host.uuid} ({host.address or 'no address'}), heartbeat at byte {host.offset:#x}"
    for lock in vmfs.locks:
        yield f"  locked by host {lock.owner}, mode {lock.mode}: {lock.path}"


def _file(file: FileCheck, hash_digits: int) -> Iterator[str]:
    value = dict(file.hashes).get("sha256") or next(iter(dict(file.hashes).values()), "UNREADABLE")
    shown = value if len(value) <= hash_digits else f"{value[: hash_digits - 1]}…"
    yield f"  {shown:{hash_digits}}  {file.size:>12}  {file.path}"
    for name, other in file.hashes:
        if other != value:
            yield f"    {name} {other}"
    if file.is_gzip and file.error is None:
        yield "    gzip: CRC and length right"
    if file.signature is not None:
        found = file.signature
        key = "" if found.key_id is None else f", key {found.key_id}"
        yield (
            f"    signature trailer: schema {found.schema}{key}, {found.length} bytes at byte {found.offset:#x}"
            " (shown, NOT verified)"
        )
    if file.error is not None:
        yield f"    DAMAGED: {file.error}"


def _bad_range(bad: BadRange) -> Iterator[str]:
    length = "all that follows" if bad.length is None else f"{bad.length} bytes"
    yield f"unreadable at byte {bad.offset:#x}: {length}: {bad.message}"
    for path in bad.files:
        yield f"  touches {path}"
