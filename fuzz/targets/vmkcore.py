"""Diagnostic partitions."""

from __future__ import annotations

from fuzz.exercise import Bounded, documented
from fuzz.samples import text
from vmvisor_image.volumes.vmkcore import DiagnosticPartition


def seeds() -> list[bytes]:
    return [bytes(4096), text(4096), bytes(70_000) + text(100)]


def one_input(data: bytes) -> None:
    start = data[0] if data else 0
    with documented():
        partition = DiagnosticPartition(Bounded(data), start, len(data))
        assert partition.is_used == (partition.usage() is not None)
