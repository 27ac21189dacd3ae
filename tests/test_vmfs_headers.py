"""Headers of VMFS volumes: a real one of 3.31, forged ones of every generation, what vmfs-tools and blkid see."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import rich

from tests.support import Counting, run
from tests.vmfs_image import expand
from vmvisor_image import FileTree, Hexdump, Image, Role
from vmvisor_image.schemas.partition_types import VMFS, VMFS_L
from vmvisor_image.schemas.vmfs import (
    DESCRIPTORS_OFFSET,
    EXTENT_BITMAP_LENGTH,
    EXTENT_BITMAP_OFFSET,
    HEARTBEAT_FREE,
    HEARTBEAT_OFFSET,
    LVM_OFFSET,
    VOLUME_TABLE_OFFSET,
    ClusterMetadata,
    DiskLock,
    FileMetadata,
    Heartbeat,
    ResourceFileMetadata,
    VmfsDirectoryEntry,
    vmfs_uuid,
)
from vmvisor_image.testing.forge import ForgedPartition, SparseImage, mbr_disk
from vmvisor_image.testing.forge_gpt import GptPartition, gpt_disk
from vmvisor_image.testing.forge_vmfs import NaaDisk, VmfsKind, vmfs_headers
from vmvisor_image.volumes.vmfs.volume import VmfsVolume

MIB = 1 << 20


@pytest.fixture(scope="session")
def real(shared_data: Path) -> SparseImage:
    return expand(shared_data / "vmfs3-real.vmfsimg")


@pytest.fixture
def real_file(real: SparseImage, tmp_path: Path) -> Path:
    path = tmp_path / "vmfs3.img"
    real.write_to(path)
    return path


def volume_of(image: Image, number: int = 1) -> VmfsVolume:
    volume = image.partitions[number].volume
    assert isinstance(volume, VmfsVolume)
    return volume


class TestRealVolume:
    """Each fact that formats.md marks as seen on this volume."""

    def test_device(self, real: SparseImage) -> None:
        with Image.open(real) as image:
            device = volume_of(image).device
        assert device.raw[:4] == bytes.fromhex("0dd001c0")
        assert (device.major_version, device.minor_version) == (3, 0x10)
        assert (device.disk_id_type, device.disk_id_length, device.lun) == (0, 0x0F, 0)
        assert (device.device_type, device.scsi_level) == (0, 3)
        assert (device.vendor.strip(), device.model.strip(), device.revision) == (b"Sun", b"VOL1", b"V1.0")
        assert device.disk_id.rstrip(b"\0") == b"vmhba0:C0:T0:L0"
        assert (device.disk_block_size, device.total_bytes) == (512, 0x4B023400)
        assert (device.volume_count, device.extent_count, device.last_extent) == (1, 4, 3)
        assert (device.generation, device.data_offset) == (6, 0x1100000)
        assert vmfs_uuid(device.device_uuid) == "49edf844-da2dde19-747b-0021280083cf"
        when = datetime(2009, 4, 21, 16, 45, 56, tzinfo=UTC).timestamp()
        assert device.created_us // 1_000_000 == device.modified_us // 1_000_000 == when
        assert (device.locked_by, device.locked_us, device.unknown) == (bytes(16), 0, 0)
        assert (device.extent_map_count, device.extended_metadata_offset) == (0, 0)
        assert (device.metadata_alignment, device.extent_count_6, device.flags) == (0, 0, 0)

    def test_volume_table(self, real: SparseImage) -> None:
        with Image.open(real) as image:
            volume = volume_of(image).volume
        assert volume is not None
        assert volume.size == 0x40000000
        assert volume.name.rstrip(b"\0").decode() == vmfs_uuid(volume.uuid) == "49edf842-dcb35d37-b383-0021280083cf"
        assert (volume.snapshot_id, volume.extent_count) == (1, 4)
        assert (volume.first_extent, volume.last_extent, volume.device_count) == (0, 3, 1)
        assert volume.created_us // 1_000_000 == datetime(2009, 4, 21, 16, 45, 56, tzinfo=UTC).timestamp()

    def test_physical_extents(self, real: SparseImage) -> None:
        with Image.open(real) as image:
            extents = volume_of(image).extents
            bitmap = image.read_at(LVM_OFFSET + VOLUME_TABLE_OFFSET + EXTENT_BITMAP_OFFSET, EXTENT_BITMAP_LENGTH)
        assert bitmap == b"\x0f" + bytes(1023)
        size = 0x10000000
        assert [(e.number, e.physical_offset, e.logical_offset, e.size) for e in extents] == [
            (number, 0x1100000 + number * size, number * size, size) for number in range(4)
        ]

    def test_file_system(self, real: SparseImage) -> None:
        with Image.open(real) as image:
            volume = volume_of(image)
            found = volume.file_system
        assert found is not None
        assert found.source_offset == 0x1300000
        assert (found.magic, found.major_version, found.minor_version) == (0x2FABF15E, 4, 31)
        assert (volume.kind, volume.version, volume.label) == ("vmfs3", "3.31", "toto")
        assert volume.uuid == "49edf844-ebfc28f3-65cb-0021280083cf"
        assert (found.flags, found.disk_block_size, found.file_block_size) == (2, 512, 0x100000)
        assert (found.created, found.snapshot_id) == (0x49EDF844, 1)
        assert volume.volume is not None
        assert found.volume_uuid == volume.volume.uuid
        assert (found.descriptor_group_offset, found.clusters_per_group) == (0x10000, 32)
        assert (found.sub_block_size, found.most_journal_slots) == (0x10000, 0)
        assert not any(found.raw[0xE1:])

    def test_heartbeats(self, real: SparseImage) -> None:
        with Image.open(real) as image:
            volume = volume_of(image)
            assert volume.active_hosts == ()
            for slot in (0, 1, 2047):
                at = volume.device.data_offset + HEARTBEAT_OFFSET + slot * 512
                beat = Heartbeat.parse(image.read_at(at, Heartbeat.length()))
                assert (beat.state, beat.volume_address) == (HEARTBEAT_FREE, HEARTBEAT_OFFSET + slot * 512)

    def test_resource_files_locks_and_root_directory(self, real: SparseImage) -> None:
        """Walked by hand, by the sheet's arithmetic."""

        def read(offset: int, length: int) -> bytes:
            return real.read_at(0x1100000 + offset, length)

        def geometry(offset: int) -> tuple[int, ...]:
            found = ResourceFileMetadata.parse(read(offset, ResourceFileMetadata.length()))
            return (
                *(found.resources_per_cluster, found.clusters_per_group, found.cluster_group_offset),
                *(found.resource_size, found.cluster_group_size, found.resource_count, found.group_count),
            )

        def descriptor(address: int) -> tuple[DiskLock, FileMetadata, int]:
            at = DESCRIPTORS_OFFSET + 0x10000 + 32 * 1024 + (address >> 22) * 0x800
            lock, metadata, pointers = read(at, 64), read(at + 512, FileMetadata.length()), read(at + 1024, 4)
            assert DiskLock.parse(lock).volume_address == at
            return DiskLock.parse(lock), FileMetadata.parse(metadata), int.from_bytes(pointers, "little")

        assert geometry(DESCRIPTORS_OFFSET) == (32, 32, 0x10000, 0x800, 0x208000, 256, 1)
        cluster = DESCRIPTORS_OFFSET + 0x10000
        assert DiskLock.parse(read(cluster, 64)).type == 0x10C00005
        counts = ClusterMetadata.parse(read(cluster + 512, 16))
        bitmap = int.from_bytes(read(cluster + 512 + 16, 4), "little")
        assert (counts.number, counts.resource_count) == (0, 32)
        assert bitmap.bit_count() == counts.free_count

        for address, expected in (
            (0x400004, (200, 32, 0x10000, 0, 0x8000, 1024, 1)),
            (0x800004, (32, 32, 0x10000, 0x800, 0x208000, 256, 1)),
            (0xC00004, (16, 32, 0x10000, 0x1000, 0x208000, 2, 1)),
            (0x1000004, (16, 32, 0x10000, 0x10000, 0x2008000, 1024, 2)),
        ):
            lock, metadata, first = descriptor(address)
            assert (lock.type, metadata.address, metadata.type) == (0x10C00001, address, 5)
            assert metadata.pointer_type == 1
            block = (first >> 6) * 0x100000
            assert geometry(block) == expected, f"{address:#x}"
        assert descriptor(0x1400004)[1].type == 5

        lock, metadata, first = descriptor(0x4)
        assert (lock.type, metadata.type, metadata.address) == (0x10C00001, 2, 4)
        assert first >> 6 == 5
        entries = list(VmfsDirectoryEntry.parse_all(read(5 * 0x100000, metadata.size)))
        names = [entry.name.partition(b"\0")[0].decode() for entry in entries if entry.address]
        assert len(names) == 15
        assert {".", "..", ".fbb.sf", ".fdc.sf", ".pbc.sf", ".sbc.sf", ".vh.sf"} <= set(names)

    def test_as_debugvmfs_and_blkid_show_it(self, real_file: Path) -> None:
        file_system = run("debugvmfs", real_file, "show")
        manager = run("debugvmfs", real_file, "show", "lvm")
        probed = run("blkid", "-p", real_file)
        with Image.open(real_file) as image:
            partition, volume = image.partitions[1], volume_of(image)
            assert (partition.kind, partition.role, partition.label) == ("vmfs3", Role.DATASTORE, "toto")
            assert image.problems == ()
            assert f"UUID: {volume.volume_uuid}\n" in manager
            assert "Size: 1 GiB\n" in manager
            assert f"UUID: {volume.uuid}\n" in file_system
            assert f"Label: {volume.label}\n" in file_system
            assert f"Creation time: {volume.created:%Y-%m-%d %H:%M:%S}" in file_system
            assert volume.block_size == MIB
            assert "Block size: 1 MiB" in file_system
            assert f'UUID="{volume.volume_uuid}"' in probed
            assert f'UUID_SUB="{vmfs_uuid(volume.device.device_uuid)}"' in probed
            assert 'TYPE="VMFS_volume_member"' in probed
            assert volume.capacity == 1 << 30
            text = partition.explain()
            assert "3.31" in text
            assert "0x1300000" in text


@pytest.mark.parametrize("kind", ["vmfs3", "vmfs5", "vmfs6", "vmfs-l"])
class TestForgedVolumes:
    def test_what_they_say(self, kind: VmfsKind) -> None:
        with Image.open(vmfs_headers(kind, label="Größe <1>", hosts=("10.0.0.7", "fe80::1"))) as image:
            partition, volume = image.partitions[1], volume_of(image)
            assert partition.kind == kind
            assert partition.role is (Role.OSDATA if kind == "vmfs-l" else Role.DATASTORE)
            assert volume.label == "Größe <1>"
            assert volume.capacity == 2 << 28
            assert volume.is_first_device
            assert [host.address for host in volume.active_hosts] == ["10.0.0.7", "fe80::1"]
            assert [(problem.structure, problem.offset) for problem in image.problems] == [
                ("VMFS heartbeat", host.offset) for host in volume.active_hosts
            ]
            assert "10.0.0.7" in partition.explain()
            slot = 512 if kind in ("vmfs3", "vmfs5") else 4096
            assert [host.offset for host in volume.active_hosts] == [0x1100000 + 0x300000 + n * slot for n in (0, 1)]

    def test_the_version(self, kind: VmfsKind) -> None:
        with Image.open(vmfs_headers(kind)) as image:
            assert volume_of(image).version == {"vmfs3": "3.31", "vmfs5": "5.81"}.get(kind, "6.82")

    def test_blkid_sees_the_same(self, kind: VmfsKind, tmp_path: Path) -> None:
        path = tmp_path / "volume"
        vmfs_headers(kind).write_to(path)
        probed = run("blkid", "-p", path)
        with Image.open(path) as image:
            volume = volume_of(image)
            assert f'UUID_SUB="{vmfs_uuid(volume.device.device_uuid)}"' in probed
            if kind in ("vmfs3", "vmfs5"):  # blkid does not know where VMFS 6 keeps it
                assert f' UUID="{volume.volume_uuid}"' in probed
            assert f'VERSION="{volume.device.major_version}"' in probed

    def test_a_further_device_tells_what_it_belongs_to(self, kind: VmfsKind) -> None:
        with Image.open(vmfs_headers(kind, device=1, devices=3)) as image:
            volume = volume_of(image)
            assert image.partitions[1].kind == kind
            assert (volume.device_count, volume.is_first_device, volume.label) == (3, False, None)
            assert volume.facts["this device"] == "extents 2 to 3 of the volume"
            assert image.problems == ()


def damaged(offset: int, value: bytes, kind: VmfsKind = "vmfs5") -> SparseImage:
    whole = vmfs_headers(kind)
    pieces = [
        (at, data[: offset - at] + value + data[offset - at + len(value) :] if at <= offset < at + len(data) else data)
        for at, data in whole.pieces
    ]
    return SparseImage(whole.size, pieces)


@pytest.mark.parametrize(
    ("offset", "value", "said"),
    [
        (LVM_OFFSET + 4, b"\x09", "version 9 is not known"),
        (LVM_OFFSET + 0x5E, b"\xff" * 8, "its partition"),
        (LVM_OFFSET + 0x7A, b"\xff" * 8, "bytes wanted"),
        (LVM_OFFSET + 0x200, bytes(0x200), "it has no volume"),
        (0x1300000, b"XXXX", "magic: expected 0x2fabf15e or 0x2fabf160"),
        (0x1300000 + 0xB1, b"\x01" * 16, "a copy or a snapshot"),
    ],
)
def test_damage_is_told_and_the_rest_stays(offset: int, value: bytes, said: str) -> None:
    with Image.open(damaged(offset, value)) as image:
        partition = image.partitions[1]
        assert partition.kind in ("vmfs5", "vmfs")
        assert partition.role is Role.DATASTORE
        problems = [problem for problem in image.problems if said in str(problem)]
        assert problems
        assert all(problem.offset is not None for problem in problems)
        _ = volume_of(image).extents, volume_of(image).active_hosts
        assert partition.explain()


def test_a_device_with_an_absurd_number_of_extents() -> None:
    with Image.open(damaged(LVM_OFFSET + 0x6A, b"\xff" * 4)) as image:
        assert len(volume_of(image).extents) == 2
        assert any("4294967295 extents" in str(problem) for problem in volume_of(image).problems)


def test_by_the_datastores_name_and_past_its_partition_type() -> None:
    """Content goes before type: here a datastore is in a partition that says it is a core dump's."""
    volume = vmfs_headers("vmfs3", label="store1")
    sectors = volume.size // 512
    disk = mbr_disk([ForgedPartition(1, 0xFC, 2048, sectors, content=volume)], sectors=sectors + 4096)
    with Image.open(disk) as image:
        partition = image.partitions["STORE1"]
        assert (partition.number, partition.kind, partition.role) == (1, "vmfs3", Role.DATASTORE)
        assert any("0xC001D00D" in item.statement for item in partition.evidence)


def test_vmfs_by_its_type_alone() -> None:
    disk = gpt_disk([GptPartition(1, VMFS, 2048, 4096), GptPartition(2, VMFS_L, 8192, 4096)], sectors=20000)
    with Image.open(disk) as image:
        assert [(p.kind, p.role) for p in image.partitions] == [("empty", Role.DATASTORE), ("empty", Role.OSDATA)]


def test_uuids_are_shown_as_esx_shows_them() -> None:
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{12}", vmfs_uuid(bytes(range(16))))
    assert vmfs_uuid(bytes(range(16))) == "03020100-07060504-0908-0a0b0c0d0e0f"


class TestDisk:
    """What the volume manager's header says of the disk, as real headers of VMFS 3.46 and 5 have it: 02 16 05 00."""

    NAA = bytes.fromhex("600144f0c01d00d08e2a4f1b7c9d0e31")

    @pytest.mark.parametrize("kind", ["vmfs3", "vmfs5", "vmfs6"])
    def test_an_naa_identifier_is_told_as_esx_does(self, kind: VmfsKind, tmp_path: Path) -> None:
        path = tmp_path / "disk"
        forged = vmfs_headers(kind, disk=NaaDisk(self.NAA, lun=5))
        forged.write_to(path)
        assert forged.read_at(LVM_OFFSET + 0xC, 4) == bytes.fromhex("02160500")
        assert forged.read_at(LVM_OFFSET + 0x2E, 22) == self.NAA + b"COMSTA"
        with Image.open(path) as image:
            volume = volume_of(image)
            assert volume.facts["made on"] == "COMSTA naa.600144f0c01d00d08e2a4f1b7c9d0e31, LUN 5"
            assert volume.facts["made on"] in image.partitions[1].explain()
            assert f'UUID_SUB="{volume.facts["device UUID"]}"' in run("blkid", "-p", path)

    def test_an_identifier_of_8_bytes(self) -> None:
        with Image.open(vmfs_headers(disk=NaaDisk(bytes.fromhex("5000c500395c4dc7"), b"ST4000"))) as image:
            assert volume_of(image).facts["made on"] == "ST4000 naa.5000c500395c4dc7, LUN 0"

    @pytest.mark.parametrize("identifier", [b"", b"\x60\x01", b"\x1b]0;x\x07", b"\x16" * 22, "größer".encode()])
    @pytest.mark.parametrize("type_", [0, 2, 9])
    def test_no_control_bytes_are_shown(
        self, identifier: bytes, type_: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Whatever the fields hold: a length that is too small, escapes for a terminal, another type."""
        forged = vmfs_headers(label="a\x1b[31mb\x9bc", hosts=("10.0.0.1\x07",))
        raw = bytearray(dict(forged.pieces)[LVM_OFFSET])
        raw[0xC:0xE] = bytes((type_, len(identifier)))
        raw[0x12:0x1A] = b"\x07BELL\x1b\0\0"
        raw[0x2E:0x5A] = identifier.ljust(44, b"\0")
        pieces = [(at, bytes(raw) if at == LVM_OFFSET else data) for at, data in forged.pieces]
        with Image.open(SparseImage(forged.size, pieces)) as image:
            partition = image.partitions[1]
            facts = volume_of(image).facts
            shown = [partition.explain(), *facts, *facts.values(), *(str(found) for found in partition.evidence)]
            shown += [mark.value for record in partition.records.values() for mark in Hexdump.of(record).marks]
            rich.print(partition)
            shown += capsys.readouterr().out.splitlines()
        assert all(text.isprintable() for text in shown)
        assert facts["label"] == r"a\x1b[31mb\x9bc"
        assert "0742454c4c1b" in facts["made on"]
        if not identifier.isascii() or b"\x1b" in identifier:
            assert identifier.hex() in facts["made on"]


@pytest.mark.parametrize("kind", ["vmfs5", "vmfs6"])
def test_files_are_opened_without_the_heartbeats(kind: VmfsKind) -> None:
    """A check for the type of the volume asked for each property of it: that of the problems reads up to 4 MiB."""
    volume = Counting(vmfs_headers(kind, size=1 << 30))
    with Image.open(volume) as image:
        assert isinstance(image.partitions[1].files, FileTree)
    assert max(length for _, length in volume.reads) < 1 << 20
