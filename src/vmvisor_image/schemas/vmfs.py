"""VMFS: the structures of its volume manager (LVM) and of its file system (FS3), for VMFS 3, 5, 6 and VMFS-L.

Sources: libblkid's magics; vmfs-tools, vmfs6-tools and dissect.vmfs, read about and run as black boxes, none of their
code is here. Every field marked "seen" was found so on a real VMFS 3.31 volume; the others are as those programs show
them. All offsets are in bytes: of an LVM structure from the partition's start, of the file system's from the
volume's, whose first byte is `LvmDevice.data_offset` bytes into the partition. UUIDs are shown by `vmfs_uuid`.
"""

from __future__ import annotations

from typing import Annotated, Final

from vmvisor_image.record import U8, U16, U32, U64, Bytes, Record, record

LVM_OFFSET: Final = 0x100000
"""Where `LvmDevice` lies (seen)."""
LVM_MAGIC: Final = 0xC001D00D
USUAL_DATA_OFFSET: Final = 0x1100000
"""`LvmDevice.data_offset` of all devices that are known (seen)."""
FILE_SYSTEM_OFFSET: Final = 0x200000
"""Where `FileSystemDescriptor` lies in the volume (seen)."""
FILE_SYSTEM_MAGIC: Final = 0x2FABF15E
"""Of VMFS 3, 5 and 6."""
LOCAL_FILE_SYSTEM_MAGIC: Final = 0x2FABF15F
"""Of VMFS-L."""
FILE_SYSTEM_MAGICS: Final = (FILE_SYSTEM_MAGIC, 0x2FABF160)
"""The second one, of VMFS 6 only, is known to dissect.vmfs."""
LOCAL_FILE_SYSTEM_MAGICS: Final = (LOCAL_FILE_SYSTEM_MAGIC, 0x2FABF161)
"""As `FILE_SYSTEM_MAGICS`, of VMFS-L."""
HEARTBEAT_OFFSET: Final = 0x300000
"""Where the heartbeats begin in the volume (seen)."""
VMFS_6: Final = 24
"""`FileSystemDescriptor.major_version` from which on a volume is laid out as VMFS 6."""
USUAL_ALIGNMENT: Final = 4096
"""`FileSystemDescriptor.metadata_alignment` of VMFS 6 that all tools have, in bytes."""
HEARTBEATS_6: Final = 1024
"""Slots for heartbeats of VMFS 6."""
HEARTBEAT_FREE: Final = 0xABCDEF01
HEARTBEAT_ACTIVE: Final = 0xABCDEF02
VOLUME_TABLE_OFFSET: Final = 0x200
"""Where the volume table lies behind `LvmDevice`, of LVM 3 and 5 (seen); of LVM 6 it is `metadata_alignment`."""
EXTENT_BITMAP_OFFSET: Final = 0x80000
"""Where the bitmap of used physical extents lies behind the volume table (seen of LVM 3).

The table of extents follows it, and in LVM 6 further bitmaps and tables, `LvmDevice.extent_map_count` in all. That LVM
6 lays them out so was seen in what dissect.vmfs reads.
"""
EXTENT_BITMAP_LENGTH: Final = 1024
"""Bytes, a bit for each extent of a table; in LVM 6 at least `LvmDevice.metadata_alignment` (seen of LVM 3)."""
EXTENTS_PER_TABLE: Final = 8192
EXTENT_SIZE: Final = 0x10000000
"""Bytes in a physical extent, unless its record says otherwise: 256 MiB."""

NAA_DISK_ID: Final = 2
"""`LvmDevice.disk_id_type` of an NAA identifier with the first letters of the disk's model behind it (seen)."""
_NAA_LENGTHS: Final = {2: 8, 3: 8, 5: 8, 6: 16}
"""Bytes of an NAA identifier by its first four bits (SPC-4, 7.8.6.6); of 16 bytes (seen)."""


def vmfs_uuid(raw: bytes) -> str:
    """A UUID as ESX shows it: three little-endian numbers, the first of them a Unix time, and six bytes of a MAC."""
    first, second = (int.from_bytes(raw[at : at + 4], "little") for at in (0, 4))
    return f"{first:08x}-{second:08x}-{int.from_bytes(raw[8:10], 'little'):04x}-{raw[10:16].hex()}"


def described_disk(found: LvmDevice | ScsiDiskId) -> str:
    """Which disk it is, as ESX tells it: vendor, model, and the identifier; empty where nothing is said.

    An identifier of `NAA_DISK_ID` is shown as ``naa.`` and hexadecimal digits, with the model behind it and the LUN; of
    any other type, and in every field, what is no printable ASCII is shown in hexadecimal digits.
    """
    used, kind = found.disk_id[: found.disk_id_length], found.disk_id[0] >> 4
    length = _NAA_LENGTHS.get(kind, len(found.disk_id) + 1)
    if found.disk_id_type != NAA_DISK_ID or len(used) < length:
        return " ".join(filter(None, map(_text_or_hex, (found.vendor, found.model, found.disk_id))))
    names = dict.fromkeys(map(_text_or_hex, (found.vendor, found.model, used[length:])))
    shown = " ".join(filter(None, (*names, f"naa.{used[:length].hex()}")))
    return f"{shown}, LUN {found.lun}"


def _text_or_hex(raw: bytes) -> str:
    """A field of ASCII, padded with NUL or spaces, as SPC-4 (6.6.2) has them; its bytes where it is something else."""
    text = raw.rstrip(b"\0 ").lstrip(b" ")
    return text.decode("ascii") if all(0x20 <= byte < 0x7F for byte in text) else raw.rstrip(b"\0").hex()


@record
class LvmDevice(Record):
    """One device of a volume: 0xD6 bytes at `LVM_OFFSET`."""

    magic: U32
    """`LVM_MAGIC` (seen)."""
    major_version: U32
    """3 (VMFS 3, seen), 5 or 6."""
    minor_version: U32
    """0x10 and 0x11 of LVM 3, 0x15 of LVM 5 (seen)."""
    disk_id_type: U8
    """Kind of `disk_id`: 0 (seen), `NAA_DISK_ID` (seen of VMFS 3.46 and of VMFS 5)."""
    disk_id_length: U8
    """Bytes of `disk_id` in use: 0x0F (seen), 0x16 of `NAA_DISK_ID` (seen)."""
    lun: U16
    """SCSI logical unit; 0 and 5 (seen)."""
    device_type: U8
    """SCSI device type; 0 is a disk (seen)."""
    scsi_level: U8
    """3 (seen)."""
    vendor: Annotated[bytes, Bytes(8)]
    """SCSI vendor, such as "Sun" (seen); with its model and revision zeros where `disk_id` is an NAA (seen)."""
    model: Annotated[bytes, Bytes(16)]
    """SCSI model (seen)."""
    revision: Annotated[bytes, Bytes(4)]
    """SCSI revision (seen)."""
    disk_id: Annotated[bytes, Bytes(44)]
    """Such as "vmhba0:C0:T0:L0" (seen), or 16 bytes of NAA and 6 letters of the model, "COMSTA" (seen)."""
    disk_block_size: U32
    """Bytes; 512 (seen)."""
    total_bytes: U64
    """Size of the partition (seen)."""
    volume_count: U32
    """1 (seen)."""
    extent_count: U32
    """Number of physical extents on this device (seen of LVM 3)."""
    last_extent: U32
    """Number of the last one (seen)."""
    generation: U64
    """Counts changes (seen)."""
    data_offset: U64
    """Where the device's first extent begins in the partition; 0x1100000 (seen)."""
    device_uuid: Annotated[bytes, Bytes(16)]
    """Of this device (seen)."""
    created_us: U64
    """Microseconds since 1970 (seen)."""
    modified_us: U64
    """Microseconds since 1970 (seen)."""
    locked_by: Annotated[bytes, Bytes(16)]
    """UUID of the host that changes it, else zeros (seen)."""
    locked_us: U64
    """When it was locked; 0 (seen)."""
    unknown: U32
    """0 (seen); of one volume of VMFS 3.46 the bytes of an IPv4 address in network order, perhaps of the last host that
    locked it (seen)."""
    extent_map_count: U32
    """Bitmaps and tables of extents behind this header, of LVM 6; 0 of LVM 3, 1 of LVM 5 (seen)."""
    extended_metadata_offset: U64
    """Where `LvmExtendedMetadata` lies in the partition, of LVM 6; else 0 (seen)."""
    metadata_alignment: U32
    """Bytes; of LVM 6, else 0 (seen)."""
    extent_count_6: U32
    """Number of physical extents, of LVM 6; else 0 (seen)."""
    flags: U32
    """1: VMFS-L; of LVM 6, else 0 (seen)."""


@record
class LvmVolume(Record):
    """The entry of the volume table: which volume the device belongs to."""

    size: U64
    """Bytes in the whole volume; 0x40000000 (seen)."""
    generation: U64
    """Counts changes."""
    state: U32
    """1 normal, 2 resignature pending, 3 done."""
    name: Annotated[bytes, Bytes(64)]
    """The volume's UUID as text (seen)."""
    uuid: Annotated[bytes, Bytes(16)]
    """The volume's UUID (seen)."""
    snapshot_id: U32
    """1 (seen)."""
    created_us: U64
    """Microseconds since 1970 (seen)."""
    volume_id: U32
    """Number of the volume."""
    extent_count: U32
    """Physical extents of the volume on this device; 4 (seen)."""
    first_extent: U64
    """The volume's first extent that is on this device; 0 (seen)."""
    last_extent: U64
    """The volume's last one, inclusive; 3 (seen)."""
    modified_us: U64
    """Microseconds since 1970."""
    device_count: U32
    """Devices that make up the volume; 1 (seen)."""
    unknown: Annotated[bytes, Bytes(124)]
    """Not known."""
    consumed_extents: U32
    """Extents in use."""
    rest: Annotated[bytes, Bytes(236)]
    """Not known."""


@record
class LvmExtendedMetadata(Record):
    """More bitmaps and tables of extents, of LVM 6: they lie behind it as those of `LvmDevice` do."""

    magic: U32
    """`LVM_MAGIC`."""
    extent_map_count: U32
    """Bitmaps and tables of extents here."""
    data_offset: U64
    """Where the extents begin that they tell of."""
    next_offset: U64
    """Where the next one lies in the partition; 0 for none."""


@record
class PhysicalExtent(Record):
    """An entry of the table of physical extents: where a piece of the volume lies on the device."""

    is_used: U8
    """1 where it belongs to a volume (seen)."""
    number: U32
    """Its number on the device (seen)."""
    volume_id: U32
    """The volume it belongs to."""
    physical_offset: U64
    """Where it lies in the partition, in bytes; the first one at 0x1100000 (seen)."""
    logical_offset: U64
    """Where it lies in the volume, in bytes (seen)."""
    size: U64
    """Bytes; 0x10000000 (seen)."""
    version: U32
    """Not known."""
    rest: Annotated[bytes, Bytes(91)]
    """Entries are 128 bytes apart."""


@record
class FileSystemDescriptor(Record):
    """The file system: at `FILE_SYSTEM_OFFSET` in the volume."""

    magic: U32
    """`FILE_SYSTEM_MAGIC` (seen) or `LOCAL_FILE_SYSTEM_MAGIC`."""
    major_version: U32
    """4: VMFS 3 (seen); 14: VMFS 5; 24: VMFS 6."""
    minor_version: U8
    """What stands behind the dot of the version: 31 of 3.31 (seen)."""
    uuid: Annotated[bytes, Bytes(16)]
    """Of the file system (seen)."""
    flags: U32
    """4 dense sub-blocks, 8 maintenance, 0x100 local, 0x400 shared, 0x800 OSDATA, 0x1000 vSAN; 2 (seen)."""
    label: Annotated[bytes, Bytes(128)]
    """The datastore's name, in UTF-8, ended by NUL (seen)."""
    disk_block_size: U32
    """Bytes; 512 (seen)."""
    file_block_size: U64
    """Bytes; 1, 2, 4 or 8 MiB (0x100000 seen)."""
    created: U32
    """Seconds since 1970 (seen)."""
    snapshot_id: U32
    """1 (seen)."""
    volume_uuid: Annotated[bytes, Bytes(16)]
    """UUID of the LVM volume that holds it; another one than `LvmVolume.uuid` marks a copy (seen)."""
    volume_snapshot_id: U32
    """Of that volume (seen)."""
    volume_rest: Annotated[bytes, Bytes(12)]
    """Not known."""
    descriptor_group_offset: U32
    """Bytes from a resource file's start to its first cluster group; 0x10000 (seen)."""
    clusters_per_group: U32
    """Of file descriptors; 32 (seen)."""
    sub_block_size: U32
    """Bytes; 0x10000 (seen); 8 KiB of VMFS 5."""
    most_journal_slots: U32
    """Journal slots of a transaction; 0 (seen)."""
    pb2_volume_address: U64
    """Of VMFS 5 and later; 0 (seen)."""
    pb2_descriptor: U32
    """Of VMFS 5 and later; 0 (seen)."""
    unknown_1: Annotated[bytes, Bytes(24)]
    """Not known."""
    sdd_volume_address: U64
    """Of VMFS 5 and later; 0 (seen)."""
    sdd_descriptor: U32
    """Of VMFS 5 and later; 0 (seen)."""
    checksum_type: U8
    """From here on of VMFS 6; zeros (seen)."""
    unmap_priority: U16
    """How eagerly freed blocks are given back to the storage."""
    unknown_2: Annotated[bytes, Bytes(4)]
    """Not known."""
    generation: U64
    """Counts changes."""
    checksum: Annotated[bytes, Bytes(16)]
    """Of this descriptor."""
    physical_block_size: U32
    """Bytes in a block of the disk."""
    metadata_alignment: U32
    """Bytes."""
    large_block_shift: U16
    """A large file block is the file block's size shifted by this."""
    unknown_3: Annotated[bytes, Bytes(4)]
    """Not known."""
    pointer_block_shift: U16
    """Of the pointers in a pointer block."""
    small_block_address_bits: U16
    """Of a small file block's address."""
    unknown_4: Annotated[bytes, Bytes(2)]
    """Not known."""
    zeroing_granularity: U32
    """Bytes that are zeroed at once."""
    journal_block_size: U32
    """Bytes."""
    unknown_5: Annotated[bytes, Bytes(8)]
    """Not known."""
    stamp_us: U64
    """Microseconds since 1970."""
    mac: Annotated[bytes, Bytes(6)]
    """Of the host that made it."""
    unmap_method: U8
    """How freed blocks are given back."""


@record
class Heartbeat(Record):
    """A slot in which a host that uses the volume shows that it is alive.

    VMFS 3 and 5: 2048 slots of 512 bytes (seen); VMFS 6: 1024 of `FileSystemDescriptor.metadata_alignment`, 4096.
    """

    state: U32
    """`HEARTBEAT_FREE` (seen) or `HEARTBEAT_ACTIVE`."""
    volume_address: U64
    """Its own place in the volume, in bytes (seen)."""
    generation: U64
    """Counts the slot's users."""
    stamp_us: U64
    """Microseconds since the host started."""
    owner: Annotated[bytes, Bytes(16)]
    """UUID of the host; zeros where it is free."""
    journal_block: U32
    """The host's journal."""
    driver_major: U32
    """Version of the host's VMFS driver."""
    driver_minor: U8
    """As `driver_major`."""
    lock_method: U8
    """How it locks."""
    address: Annotated[bytes, Bytes(46)]
    """The host's IP address, as text."""
    journal_volume_address: U64
    """Where the journal lies in the volume."""


DESCRIPTORS_OFFSET: Final = 0x400000
"""Where the file descriptors' resource file lies in a volume of blocks of 1 MiB (seen)."""
MOST_POINTERS_6: Final = 320
"""Pointers in a descriptor of VMFS 6 whose metadata are aligned to 4 KiB.

Of a larger alignment there is one for each 16 bytes of it, as dissect.vmfs reads them and VMkatz (MIT) says.
"""


def descriptors_offset_6(alignment: int) -> int:
    """Where they lie in VMFS 6 whose metadata are aligned to so many bytes: in the whole MiB behind the heartbeats.

    Of the usual alignment that is 0x700000, where vmfs6-tools reads it; dissect.vmfs and VMkatz (MIT) have all of them.
    """
    return -(-(HEARTBEAT_OFFSET + HEARTBEATS_6 * alignment) >> 20) << 20


RESOURCE_FILE_SIGNATURE: Final = 0x72666D64
"""`ResourceFileMetadata.signature` of VMFS 6: "rfmd", without which dissect.vmfs refuses one."""


@record
class ResourceFileMetadata(Record):
    """What a resource file begins with: how its clusters and resources lie.

    Seen of file descriptors (.fdc.sf), file blocks (.fbb.sf), pointer blocks (.pbc.sf) and sub-blocks (.sbc.sf). A
    cluster ``c`` lies in group ``g = c // clusters_per_group``, which begins at ``cluster_group_offset + g *
    cluster_group_size`` with the headers of all its clusters; the resources follow.
    """

    resources_per_cluster: U32
    """32 of file descriptors, 200 of file blocks, 16 of the others (seen)."""
    clusters_per_group: U32
    """32, or 1024 where a group is all there is (seen)."""
    cluster_group_offset: U32
    """Where the first group begins, in bytes; 0x10000 (seen)."""
    resource_size: U32
    """Bytes; 0 of file blocks, which lie elsewhere (seen)."""
    cluster_group_size: U32
    """Bytes from one group to the next (seen)."""
    resource_count: U32
    """Lower half of the number of resources (seen)."""
    group_count: U32
    """Number of groups (seen)."""
    resource_count_high: U32
    """Upper half of the number of resources."""
    signature: U32
    """`RESOURCE_FILE_SIGNATURE`; from here on of VMFS 6."""
    version: U32
    """Of this structure."""
    flags: U32
    """2: it has a parent."""
    unknown: Annotated[bytes, Bytes(8)]
    """Not known."""
    child_metadata_offset: U32
    """Of a parent: where its child's metadata lies in the file. In VMFS 6 file blocks are the large ones' child."""
    parent_resources_per_cluster: U32
    """Geometry of the parent."""
    parent_clusters_per_group: U32
    """Geometry of the parent."""
    parent_cluster_group_offset: U32
    """Geometry of the parent."""


@record
class DiskLock(Record):
    """The lock of a file or a cluster: who may change it."""

    type: U32
    """0x10C00001 file descriptor (seen), 2 file blocks, 3 sub-blocks, 4 pointer blocks, 5 descriptors (seen), 6 PB2."""
    volume_address: U64
    """Its own place in the volume, in bytes (seen)."""
    heartbeat_address: U64
    """Of the holder."""
    heartbeat_generation: U64
    """Of the holder."""
    token: U64
    """Counts changes."""
    mode: U32
    """0 is unlocked."""
    owner: Annotated[bytes, Bytes(16)]
    """UUID of the host that holds it."""
    modified: U64
    """When."""


@record
class ClusterMetadata(Record):
    """What follows a cluster's lock in VMFS 3 and 5; behind it a bitmap in which 1 is a free resource (seen)."""

    number: U32
    """Of the cluster, from 0 (seen)."""
    resource_count: U32
    """Resources in it (seen)."""
    free_count: U32
    """Those that are free (seen)."""
    next_free: U32
    """Where to look for one."""


@record
class FileMetadata(Record):
    """A file, directory or other object: what follows the lock of its file descriptor."""

    address: U32
    """Of this file descriptor (seen)."""
    generation: U32
    """Counts the descriptor's users."""
    links: U32
    """Number of names."""
    type: U32
    """2 directory, 3 file, 4 symbolic link, 5 system file, 6 raw device mapping (seen: 2, 3, 5)."""
    flags: U32
    """Not known in full."""
    size: U64
    """Bytes."""
    block_size: U64
    """Bytes in each of its blocks."""
    block_count: U64
    """Number of blocks in use."""
    modified: U32
    """Seconds since 1970."""
    created: U32
    """Seconds since 1970; the tools show it as Unix's ctime, but it is older than `modified` where both were seen."""
    accessed: U32
    """Seconds since 1970."""
    user: U32
    """Owner."""
    group: U32
    """Owner's group."""
    mode: U32
    """As Unix has it."""
    pointer_type: U32
    """What its addresses are: 1 file blocks, 2 sub-blocks, 3 blocks of pointers, 5 secondary ones, 0x10D0 double
    indirect, 0x10D1 the data itself. In VMFS 6 blocks of pointers are sub-blocks, and so are the addresses to them."""
    blocks_to_zero: U32
    """Blocks that read as zeros whatever they hold."""
    copied_on_write: U32
    """Blocks that are shared."""


@record
class FileMetadataExtension(Record):
    """What follows `FileMetadata` in VMFS 5 and later; in VMFS 3 it means nothing."""

    unknown_1: Annotated[bytes, Bytes(12)]
    """Not known."""
    pointer_block_count: U32
    """Blocks of pointers in use."""
    unknown_2: Annotated[bytes, Bytes(4)]
    """Not known."""
    signature: U32
    """0x66646D64, "fdmd"; from here on of VMFS 6."""
    affinity: U32
    """File descriptor near which it is kept."""
    zeroing_shift: U32
    """What is zeroed at once is 1 << this bytes; ``vmkfstools -D`` prints it as tbzGranularityShift."""
    parent: U32
    """File descriptor of its directory."""
    last_small_block_cluster: U32
    """Where its last small file block lies."""
    unknown_3: Annotated[bytes, Bytes(17)]
    """Not known."""
    block_offset_shift: U8
    """Each pointer stands for 1 << this bytes of the file; so dissect.vmfs reads it, of VMFS 5, too."""
    unknown_4: U16
    """Not known."""
    large_block_count: U32
    """Large file blocks in use."""


DENSE_SUB_BLOCKS: Final = 4
"""Of `FileSystemDescriptor.flags`: a pointer to a sub-block has two more bits for the resource."""
DISK_BLOCK: Final = 512
"""Bytes of a lock, and of what follows it, in VMFS 3 and 5."""
LOCK_IS_FREE: Final = 0
"""`DiskLock.mode` of what nobody holds."""
DIRECTORY_ENTRIES_OFFSET: Final = 0x10000
"""Where the first block of entries of a hashed directory lies, in bytes from the directory's start."""
DIRECTORY_VERSIONS: Final = (0xF50001, 0xFDC001)
"""What a hashed directory of VMFS 6 begins with."""


@record
class DirectoryHeader(Record):
    """What a hashed directory of VMFS 6 begins with; a table of hashes follows, and blocks 64 KiB from the start."""

    version: U32
    """One of `DIRECTORY_VERSIONS`."""
    entry_count: U32
    """Entries."""
    block_count: U32
    """Blocks in use."""
    map_count: U32
    """Blocks that are maps of blocks."""
    map_blocks: Annotated[bytes, Bytes(512)]
    """Their numbers, four bytes each."""


@record
class DirectoryBlockHeader(Record):
    """What each block of a hashed directory of VMFS 6 begins with."""

    version: U16
    """Of this structure."""
    type: U16
    """`DIRECTORY_BLOCK_ENTRIES`, 2 for links, or `DIRECTORY_BLOCK_MAP`."""
    slots: U16
    """Entries that the block has room for."""
    free_count: U16
    """Those that are free."""
    free_slots: Annotated[bytes, Bytes(56)]
    """Bitmap: 1 is a free slot."""


@record
class HashedDirectoryEntry(Record):
    """An entry of a directory of VMFS 6."""

    type: U32
    """As `FileMetadata.type`."""
    address: U32
    """Of its file descriptor; 0 for none."""
    generation: U32
    """Of its file descriptor."""
    hash_index: U16
    """Its place in the table of hashes."""
    link_hash: U16
    """Next one with the same hash."""
    offset: U64
    """Its own place in the directory."""
    name: Annotated[bytes, Bytes(256)]
    """In UTF-8, ended by NUL."""
    unused: Annotated[bytes, Bytes(8)]
    """Not known."""


DIRECTORY_BLOCK_ENTRIES: Final = 1
"""`DirectoryBlockHeader.type` of a block of entries."""
DIRECTORY_BLOCK_MAP: Final = 3
"""`DirectoryBlockHeader.type` of a map: four bits for each block, of two in a byte the high ones for the first, whose
lower two are its type, 0 of a free one. So vmfs6-tools and dissect.vmfs read it."""


@record
class ScsiDiskId(Record):
    """Which disk of the storage a raw device mapping stands for; as in `LvmDevice`."""

    disk_id_type: U8
    """Kind of `disk_id`."""
    disk_id_length: U8
    """Bytes of `disk_id` in use."""
    lun: U16
    """SCSI logical unit."""
    device_type: U8
    """SCSI device type; 0 is a disk."""
    scsi_level: U8
    """Version of SCSI."""
    vendor: Annotated[bytes, Bytes(8)]
    """SCSI vendor."""
    model: Annotated[bytes, Bytes(16)]
    """SCSI model."""
    revision: Annotated[bytes, Bytes(4)]
    """SCSI revision."""
    disk_id: Annotated[bytes, Bytes(44)]
    """Such as a serial number, or as in `LvmDevice`; see `described_disk`."""


@record
class VmfsDirectoryEntry(Record):
    """An entry of a directory of VMFS 3 and 5 (seen)."""

    type: U32
    """As `FileMetadata.type`."""
    address: U32
    """Of its file descriptor; 0 for none."""
    generation: U32
    """Of its file descriptor."""
    name: Annotated[bytes, Bytes(128)]
    """In UTF-8, ended by NUL."""
