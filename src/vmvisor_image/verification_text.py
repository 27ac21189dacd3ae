"""A verification's report in words, line by line: the same input gives the same lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vmvisor_image.explanation import counted

if TYPE_CHECKING:
    from vmvisor_image.tables.table import GptCheck
    from vmvisor_image.verification_report import (
        BadRange,
        FileCheck,
        Hashes,
        LayerCheck,
        PartitionCheck,
        VerificationReport,
    )
    from vmvisor_image.volumes.fat_check import FatFigures
    from vmvisor_image.volumes.vmfs_check import VmfsFigures


def lines(report: VerificationReport) -> Iterator[str]:
    """The report; names in it are as they are in the image, control characters too."""
    yield f"{report.name or 'image'}: {report.source_size} bytes"
    yield from _hashes(report.source_hashes, "  ")
    for layer in report.layers:
        yield _layer(layer)
        for file in layer.files:
            yield from _file(file)
    for checksum in report.checksums:
        verdict = "right" if checksum.is_right else f"WRONG, it is {checksum.found}"
        yield f"  {checksum.listed_in}: {checksum.algorithm} of {checksum.path} {verdict}"
    size = "unknown size" if report.size is None else f"{report.size} bytes"
    yield f"disk: {size}, partition table: {report.scheme}"
    if report.layers:
        yield from _hashes(report.hashes, "  ")
    for copy in report.gpt:
        yield _gpt_copy(copy)
    for name, value in report.table_facts:
        yield f"  {name}: {value}"
    for gap in report.gaps:
        yield f"  no partition at byte {gap.offset:#x}: {gap.length} bytes, {gap.nonzero} not zero"
    for partition in report.partitions:
        yield from _partition(partition)
    for bad in report.bad_ranges:
        yield from _bad_range(bad)
    for text in report.not_checked:
        yield f"not checked: {text}"
    if not report.problems:
        yield "no problems: all that was checked is sound"
        return
    yield f"{counted(len(report.problems), 'problem')}:"
    for problem in report.problems:
        yield f"  {problem}"


def _hashes(values: Hashes, indent: str) -> Iterator[str]:
    for name, value in values:
        yield f"{indent}{name} {value}"


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


def _partition(partition: PartitionCheck) -> Iterator[str]:
    label = "" if partition.label is None else f" {partition.label}"
    yield f"partition {partition.number}{label} ({partition.kind}) at byte {partition.start:#x}: {partition.size} bytes"
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
        yield from _file(file)


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


def _file(file: FileCheck) -> Iterator[str]:
    value = dict(file.hashes).get("sha256") or next(iter(dict(file.hashes).values()), "UNREADABLE")
    yield f"  {value:64}  {file.size:>12}  {file.path}"
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
