"""VMFS: structures of its volume manager (LVM) and of its file system (FS3), for VMFS 3, 5, 6 and VMFS-L.

Sources: libblkid's magics; vmfs-tools, vmfs6-tools and dissect.vmfs, read about and run as black boxes, none of their
code is here. Every field marked "seen" had that value or meaning on a real VMFS 3.31 volume; the others are as those
programs show them. All offsets are in bytes: those of LVM structures from the partition's start, and those of the file
system from the volume's start, `LvmDevice.data_offset` bytes into the partition. `vmfs_uuid` gives UUIDs as text.
"""

from __future__ import annotations

from typing import Annotated, Final

from vmvisor_image.record import U8, U16, U32, U64, Bytes, Record, record

LVM_OFFSET: Final = 0x100000
"""Offset of `LvmDevice` in the partition (seen)."""
LVM_MAGIC: Final = 0xC001D00D
USUAL_DATA_OFFSET: Final = 0x1100000
"""`LvmDevice.data_offset` of all known devices (seen)."""
FILE_SYSTEM_OFFSET: Final = 0x200000
"""Offset of `FileSystemDescriptor` in the volume (seen)."""
FILE_SYSTEM_MAGIC: Final = 0x2FABF15E
"""Magic of VMFS 3, 5 and 6."""
LOCAL_FILE_SYSTEM_MAGIC: Final = 0x2FABF15F
"""Magic of VMFS-L."""
FILE_SYSTEM_MAGICS: Final = (FILE_SYSTEM_MAGIC, 0x2FABF160)
"""Magics of VMFS 3, 5 and 6; the second one, of VMFS 6 only, is from dissect.vmfs."""
LOCAL_FILE_SYSTEM_MAGICS: Final = (LOCAL_FILE_SYSTEM_MAGIC, 0x2FABF161)
"""Magics of VMFS-L, as in `FILE_SYSTEM_MAGICS`."""
HEARTBEAT_OFFSET: Final = 0x300000
"""Offset of the first heartbeat in the volume (seen)."""
VMFS_6: Final = 24
"""Lowest `FileSystemDescriptor.major_version` of a volume with the layout of VMFS 6."""
USUAL_ALIGNMENT: Final = 4096
"""`FileSystemDescriptor.metadata_alignment` of VMFS 6 that all tools assume, in bytes."""
HEARTBEATS_6: Final = 1024
"""Number of heartbeat slots of VMFS 6."""
HEARTBEAT_FREE: Final = 0xABCDEF01
HEARTBEAT_ACTIVE: Final = 0xABCDEF02
VOLUME_TABLE_OFFSET: Final = 0x200
"""Bytes from the start of `LvmDevice` to the volume table, in LVM 3 and 5 (seen); in LVM 6 they are at least this and
`LvmDevice.metadata_alignment`."""
EXTENT_BITMAP_OFFSET: Final = 0x80000
"""Bytes from the start of the volume table to the bitmap of used physical extents (seen in LVM 3).

The table of extents follows it, and in LVM 6 further bitmaps and tables, `LvmDevice.extent_map_count` in all. That
layout of LVM 6 is the one that dissect.vmfs reads.
"""
EXTENT_BITMAP_LENGTH: Final = 1024
"""Bytes in the bitmap, a bit for each extent of a table; in LVM 6 at least `metadata_alignment` (seen in LVM 3)."""
EXTENTS_PER_TABLE: Final = 8192
EXTENT_SIZE: Final = 0x10000000
"""Bytes in a physical extent, unless its record says otherwise: 256 MiB."""

NAA_DISK_ID: Final = 2
"""`LvmDevice.disk_id_type` of an NAA identifier followed by the first letters of the disk's model (seen)."""
_NAA_LENGTHS: Final = {2: 8, 3: 8, 5: 8, 6: 16}
"""Bytes in an NAA identifier, by its first four bits (SPC-4, 7.8.6.6); 16 bytes (seen)."""


def vmfs_uuid(raw: bytes) -> str:
    """Text of a UUID as ESX shows it: three little-endian numbers, the first a Unix time, and six bytes of a MAC."""
    first, second = (int.from_bytes(raw[at : at + 4], "little") for at in (0, 4))
    return f"{first:08x}-{second:08x}-{int.from_bytes(raw[8:10], 'little'):04x}-{raw[10:16].hex()}"


def described_disk(found: LvmDevice | ScsiDiskId) -> str:
    """Description of a disk from ESX's metadata: vendor, model and identifier; empty where all of them are empty.

    An identifier of type `NAA_DISK_ID` is shown as ``naa.`` and hexadecimal digits, after the letters of the model that
    follow it, and before the LUN. Any other identifier or field that is not printable ASCII is shown in hexadecimal.
    """
    used, kind = found.disk_id[: found.disk_id_length], found.disk_id[0] >> 4
    length = _NAA_LENGTHS.get(kind, len(found.disk_id) + 1)
    if found.disk_id_type != NAA_DISK_ID or len(used) < length:
        return " ".join(filter(None, map(_text_or_hex, (found.vendor, found.model, found.disk_id))))
    names = dict.fromkeys(map(_text_or_hex, (found.vendor, found.model, used[length:])))
    shown = " ".join(filter(None, (*names, f"naa.{used[:length].hex()}")))
    return f"{shown}, LUN {found.lun}"


def _text_or_hex(raw: bytes) -> str:
    """Text of an ASCII field padded with NUL or spaces (SPC-4, 6.6.2), or hexadecimal digits where it is not ASCII."""
    text = raw.rstrip(b"\0 ").lstrip(b" ")
    return text.decode("ascii") if all(0x20 <= byte < 0x7F for byte in text) else raw.rstrip(b"\0").hex()


@record
class LvmDevice(Record):
    """Header of one device of a volume: 0xD6 bytes at `LVM_OFFSET`."""

    magic: U32
    """`LVM_MAGIC` (seen)."""
    major_version: U32
    """Version of LVM: 3 (VMFS 3, seen), 5 or 6."""
    minor_version: U32
    """Minor version: 0x10 and 0x11 in LVM 3, 0x15 in LVM 5 (seen)."""
    disk_id_type: U8
    """Kind of `disk_id`: 0 (seen), `NAA_DISK_ID` (seen in VMFS 3.46 and VMFS 5)."""
    disk_id_length: U8
    """Bytes of `disk_id` in use: 0x0F (seen), 0x16 for `NAA_DISK_ID` (seen)."""
    lun: U16
    """SCSI logical unit; 0 and 5 (seen)."""
    device_type: U8
    """SCSI device type; 0 is a disk (seen)."""
    scsi_level: U8
    """Version of SCSI; 3 (seen)."""
    vendor: Annotated[bytes, Bytes(8)]
    """SCSI vendor, such as "Sun" (seen); like model and revision, zeros where `disk_id` is an NAA (seen)."""
    model: Annotated[bytes, Bytes(16)]
    """SCSI model (seen)."""
    revision: Annotated[bytes, Bytes(4)]
    """SCSI revision (seen)."""
    disk_id: Annotated[bytes, Bytes(44)]
    """Identifier such as "vmhba0:C0:T0:L0" (seen), or 16 bytes of NAA and 6 letters of the model, "COMSTA" (seen)."""
    disk_block_size: U32
    """Bytes in a block of the disk; 512 (seen)."""
    total_bytes: U64
    """Size of the partition, in bytes (seen)."""
    volume_count: U32
    """Number of volumes; 1 (seen)."""
    extent_count: U32
    """Number of physical extents on this device (seen in LVM 3)."""
    last_extent: U32
    """Number of the last physical extent (seen)."""
    generation: U64
    """Counter of changes (seen)."""
    data_offset: U64
    """Offset of the device's first extent in the partition; 0x1100000 (seen)."""
    device_uuid: Annotated[bytes, Bytes(16)]
    """UUID of this device (seen)."""
    created_us: U64
    """Time of creation, in microseconds since 1970 (seen)."""
    modified_us: U64
    """Time of the last change, in microseconds since 1970 (seen)."""
    locked_by: Annotated[bytes, Bytes(16)]
    """UUID of the host that is changing the device, otherwise zeros (seen)."""
    locked_us: U64
    """Time of locking; 0 (seen)."""
    unknown: U32
    """0 (seen); in one volume of VMFS 3.46 the bytes of an IPv4 address in network order, perhaps that of the last host
    that locked the device (seen)."""
    extent_map_count: U32
    """Number of bitmaps and tables of extents behind this header, in LVM 6; 0 in LVM 3, 1 in LVM 5 (seen)."""
    extended_metadata_offset: U64
    """Offset of `LvmExtendedMetadata` in the partition, in LVM 6; otherwise 0 (seen)."""
    metadata_alignment: U32
    """Alignment of metadata in bytes, in LVM 6; otherwise 0 (seen)."""
    extent_count_6: U32
    """Number of physical extents, in LVM 6; otherwise 0 (seen)."""
    flags: U32
    """Flags in LVM 6: 1 for VMFS-L; otherwise 0 (seen)."""


@record
class LvmVolume(Record):
    """Entry of the volume table: the volume that the device belongs to."""

    size: U64
    """Size of the whole volume, in bytes; 0x40000000 (seen)."""
    generation: U64
    """Counter of changes."""
    state: U32
    """State: 1 normal, 2 resignature pending, 3 done."""
    name: Annotated[bytes, Bytes(64)]
    """UUID of the volume as text (seen)."""
    uuid: Annotated[bytes, Bytes(16)]
    """UUID of the volume (seen)."""
    snapshot_id: U32
    """Identifier of the snapshot; 1 (seen)."""
    created_us: U64
    """Time of creation, in microseconds since 1970 (seen)."""
    volume_id: U32
    """Number of the volume."""
    extent_count: U32
    """Number of the volume's physical extents on this device; 4 (seen)."""
    first_extent: U64
    """Number in the volume of the first extent on this device; 0 (seen)."""
    last_extent: U64
    """Number in the volume of the last extent on this device, inclusive; 3 (seen)."""
    modified_us: U64
    """Time of the last change, in microseconds since 1970."""
    device_count: U32
    """Number of devices that make up the volume; 1 (seen)."""
    unknown: Annotated[bytes, Bytes(124)]
    """Not known."""
    consumed_extents: U32
    """Number of extents in use."""
    rest: Annotated[bytes, Bytes(236)]
    """Not known."""


@record
class LvmExtendedMetadata(Record):
    """Header of more bitmaps and tables of extents, in LVM 6: they follow it as those of `LvmDevice` follow that."""

    magic: U32
    """`LVM_MAGIC`."""
    extent_map_count: U32
    """Number of bitmaps and tables of extents behind this header."""
    data_offset: U64
    """Offset of the first extent in these tables."""
    next_offset: U64
    """Offset of the next `LvmExtendedMetadata` in the partition; 0 for none."""


@record
class PhysicalExtent(Record):
    """Entry of the table of physical extents: place of a part of the volume on the device."""

    is_used: U8
    """1 where the extent belongs to a volume (seen)."""
    number: U32
    """Number of the extent on the device (seen)."""
    volume_id: U32
    """Number of the volume that the extent belongs to."""
    physical_offset: U64
    """Offset of the extent in the partition, in bytes; 0x1100000 for the first one (seen)."""
    logical_offset: U64
    """Offset of the extent in the volume, in bytes (seen)."""
    size: U64
    """Bytes in the extent; 0x10000000 (seen)."""
    version: U32
    """Not known."""
    rest: Annotated[bytes, Bytes(91)]
    """Rest of the entry, which has 128 bytes."""


@record
class FileSystemDescriptor(Record):
    """Descriptor of the file system, at `FILE_SYSTEM_OFFSET` in the volume."""

    magic: U32
    """`FILE_SYSTEM_MAGIC` (seen) or `LOCAL_FILE_SYSTEM_MAGIC`."""
    major_version: U32
    """Major version: 4 for VMFS 3 (seen), 14 for VMFS 5, 24 for VMFS 6."""
    minor_version: U8
    """Minor version, behind the dot: 31 for 3.31 (seen)."""
    uuid: Annotated[bytes, Bytes(16)]
    """UUID of the file system (seen)."""
    flags: U32
    """Flags: 4 dense sub-blocks, 8 maintenance, 0x100 local, 0x400 shared, 0x800 OSDATA, 0x1000 vSAN; 2 (seen)."""
    label: Annotated[bytes, Bytes(128)]
    """Name of the datastore, in UTF-8, ended by NUL (seen)."""
    disk_block_size: U32
    """Bytes in a block of the disk; 512 (seen)."""
    file_block_size: U64
    """Bytes in a file block: 1, 2, 4 or 8 MiB (0x100000 seen)."""
    created: U32
    """Time of creation, in seconds since 1970 (seen)."""
    snapshot_id: U32
    """Identifier of the snapshot; 1 (seen)."""
    volume_uuid: Annotated[bytes, Bytes(16)]
    """UUID of the LVM volume that holds the file system; if it differs from `LvmVolume.uuid`, this is a copy (seen)."""
    volume_snapshot_id: U32
    """Identifier of that volume's snapshot (seen)."""
    volume_rest: Annotated[bytes, Bytes(12)]
    """Not known."""
    descriptor_group_offset: U32
    """Bytes from a resource file's start to its first cluster group; 0x10000 (seen)."""
    clusters_per_group: U32
    """Clusters of file descriptors in a cluster group; 32 (seen)."""
    sub_block_size: U32
    """Bytes in a sub-block; 0x10000 (seen), 8 KiB in VMFS 5."""
    most_journal_slots: U32
    """Largest number of journal slots of a transaction; 0 (seen)."""
    pb2_volume_address: U64
    """Address of PB2 in the volume, in VMFS 5 and later; 0 (seen)."""
    pb2_descriptor: U32
    """Descriptor of PB2, in VMFS 5 and later; 0 (seen)."""
    unknown_1: Annotated[bytes, Bytes(24)]
    """Not known."""
    sdd_volume_address: U64
    """Address of SDD in the volume, in VMFS 5 and later; 0 (seen)."""
    sdd_descriptor: U32
    """Descriptor of SDD, in VMFS 5 and later; 0 (seen)."""
    checksum_type: U8
    """Kind of `checksum`; this field and all that follow are of VMFS 6, otherwise zeros (seen)."""
    unmap_priority: U16
    """Priority with which freed blocks are given back to the storage."""
    unknown_2: Annotated[bytes, Bytes(4)]
    """Not known."""
    generation: U64
    """Counter of changes."""
    checksum: Annotated[bytes, Bytes(16)]
    """Checksum of this descriptor."""
    physical_block_size: U32
    """Bytes in a block of the disk."""
    metadata_alignment: U32
    """Alignment of metadata, in bytes."""
    large_block_shift: U16
    """Number of bits by which the size of a file block is shifted to give that of a large file block."""
    unknown_3: Annotated[bytes, Bytes(4)]
    """Not known."""
    pointer_block_shift: U16
    """Shift for the pointers in a pointer block."""
    small_block_address_bits: U16
    """Bits in the address of a small file block."""
    unknown_4: Annotated[bytes, Bytes(2)]
    """Not known."""
    zeroing_granularity: U32
    """Bytes that are zeroed at once."""
    journal_block_size: U32
    """Bytes in a journal block."""
    unknown_5: Annotated[bytes, Bytes(8)]
    """Not known."""
    stamp_us: U64
    """Time in microseconds since 1970."""
    mac: Annotated[bytes, Bytes(6)]
    """MAC address of the host that made the file system."""
    unmap_method: U8
    """Method by which freed blocks are given back to the storage."""


@record
class Heartbeat(Record):
    """Slot in which a host that uses the volume shows that it is alive.

    VMFS 3 and 5: 2048 slots of 512 bytes (seen); VMFS 6: 1024 of `FileSystemDescriptor.metadata_alignment`, 4096.
    """

    state: U32
    """`HEARTBEAT_FREE` (seen) or `HEARTBEAT_ACTIVE`."""
    volume_address: U64
    """Offset of the slot itself in the volume, in bytes (seen)."""
    generation: U64
    """Counter of the slot's users."""
    stamp_us: U64
    """Time in microseconds since the host started."""
    owner: Annotated[bytes, Bytes(16)]
    """UUID of the host; zeros where the slot is free."""
    journal_block: U32
    """Block of the host's journal."""
    driver_major: U32
    """Major version of the host's VMFS driver."""
    driver_minor: U8
    """Minor version of the host's VMFS driver."""
    lock_method: U8
    """Method by which the host locks."""
    address: Annotated[bytes, Bytes(46)]
    """IP address of the host, as text."""
    journal_volume_address: U64
    """Address of the host's journal in the volume."""


DESCRIPTORS_OFFSET: Final = 0x400000
"""Offset of the file descriptors' resource file in a volume with blocks of 1 MiB (seen)."""
MOST_POINTERS_6: Final = 320
"""Pointers in a file descriptor of VMFS 6 with metadata aligned to 4 KiB.

With a larger alignment there is one for each 16 bytes of it, as dissect.vmfs reads them and VMkatz (MIT) says.
"""


def descriptors_offset_6(alignment: int) -> int:
    """Offset of the file descriptors in VMFS 6 with metadata aligned to that many bytes: the MiB after heartbeats.

    With the usual alignment it is 0x700000, where vmfs6-tools reads it; dissect.vmfs and VMkatz (MIT) have all others.
    """
    return -(-(HEARTBEAT_OFFSET + HEARTBEATS_6 * alignment) >> 20) << 20


RESOURCE_FILE_SIGNATURE: Final = 0x72666D64
"""`ResourceFileMetadata.signature` of VMFS 6: "rfmd", without which dissect.vmfs refuses a resource file."""


@record
class ResourceFileMetadata(Record):
    """Header of a resource file: layout of its clusters and resources.

    Seen for file descriptors (.fdc.sf), file blocks (.fbb.sf), pointer blocks (.pbc.sf) and sub-blocks (.sbc.sf). A
    cluster ``c`` lies in group ``g = c // clusters_per_group``, which begins at ``cluster_group_offset + g *
    cluster_group_size`` with the headers of all its clusters; the resources follow.
    """

    resources_per_cluster: U32
    """Resources in a cluster: 32 file descriptors, 200 file blocks, 16 of the others (seen)."""
    clusters_per_group: U32
    """Clusters in a group: 32, or 1024 where there is only one group (seen)."""
    cluster_group_offset: U32
    """Bytes from the file's start to the first group; 0x10000 (seen)."""
    resource_size: U32
    """Bytes in a resource; 0 for file blocks, which lie elsewhere (seen)."""
    cluster_group_size: U32
    """Bytes from one group to the next (seen)."""
    resource_count: U32
    """Lower half of the number of resources (seen)."""
    group_count: U32
    """Number of groups (seen)."""
    resource_count_high: U32
    """Upper half of the number of resources."""
    signature: U32
    """`RESOURCE_FILE_SIGNATURE`; this field and all that follow are of VMFS 6."""
    version: U32
    """Version of this structure."""
    flags: U32
    """Flags; 2: the file has a parent."""
    unknown: Annotated[bytes, Bytes(8)]
    """Not known."""
    child_metadata_offset: U32
    """In a parent, offset of its child's metadata in the file. In VMFS 6, file blocks are the child of large ones."""
    parent_resources_per_cluster: U32
    """Resources in a cluster of the parent."""
    parent_clusters_per_group: U32
    """Clusters in a group of the parent."""
    parent_cluster_group_offset: U32
    """Offset of the first group of the parent."""


@record
class DiskLock(Record):
    """Lock of a file or a cluster: the host that may change it."""

    type: U32
    """Kind: 0x10C00001 file descriptor (seen), 2 file blocks, 3 sub-blocks, 4 pointer blocks, 5 descriptors (seen),
    6 PB2."""
    volume_address: U64
    """Offset of the lock itself in the volume, in bytes (seen)."""
    heartbeat_address: U64
    """Address of the holder's heartbeat."""
    heartbeat_generation: U64
    """Generation of the holder's heartbeat."""
    token: U64
    """Counter of changes."""
    mode: U32
    """Mode; 0 is unlocked."""
    owner: Annotated[bytes, Bytes(16)]
    """UUID of the host that holds the lock."""
    modified: U64
    """Time of the last change of the lock."""


@record
class ClusterMetadata(Record):
    """Structure after a cluster's lock in VMFS 3 and 5; a bitmap follows in which 1 is a free resource (seen)."""

    number: U32
    """Number of the cluster, from 0 (seen)."""
    resource_count: U32
    """Number of resources in the cluster (seen)."""
    free_count: U32
    """Number of free resources in the cluster (seen)."""
    next_free: U32
    """Place at which to look for a free resource."""


@record
class FileMetadata(Record):
    """Metadata of a file, directory or other object, after the lock in its file descriptor."""

    address: U32
    """Address of this file descriptor (seen)."""
    generation: U32
    """Counter of the descriptor's users."""
    links: U32
    """Number of names."""
    type: U32
    """Type: 2 directory, 3 file, 4 symbolic link, 5 system file, 6 raw device mapping (seen: 2, 3, 5)."""
    flags: U32
    """Flags, not all of them known."""
    size: U64
    """Size of the object, in bytes."""
    block_size: U64
    """Bytes in each of its blocks."""
    block_count: U64
    """Number of blocks in use."""
    modified: U32
    """Time of the last write, in seconds since 1970."""
    created: U32
    """Time of creation, in seconds since 1970; tools show it as Unix's ctime, but it is before `modified` (seen)."""
    accessed: U32
    """Time of the last access, in seconds since 1970."""
    user: U32
    """Id of the owner."""
    group: U32
    """Id of the owner's group."""
    mode: U32
    """Mode, as in Unix."""
    pointer_type: U32
    """Kind of its addresses: 1 file blocks, 2 sub-blocks, 3 pointer blocks, 5 secondary pointer blocks, 0x10D0 double
    indirect, 0x10D1 the data itself. In VMFS 6, pointer blocks are sub-blocks, and so are the addresses to them."""
    blocks_to_zero: U32
    """Number of blocks that read as zeros whatever they hold."""
    copied_on_write: U32
    """Number of blocks that are shared."""


@record
class FileMetadataExtension(Record):
    """Structure after `FileMetadata` in VMFS 5 and later; without meaning in VMFS 3."""

    unknown_1: Annotated[bytes, Bytes(12)]
    """Not known."""
    pointer_block_count: U32
    """Number of pointer blocks in use."""
    unknown_2: Annotated[bytes, Bytes(4)]
    """Not known."""
    signature: U32
    """0x66646D64, "fdmd"; this field and all that follow are of VMFS 6."""
    affinity: U32
    """File descriptor near which this one is kept."""
    zeroing_shift: U32
    """Binary logarithm of the bytes zeroed at once; ``vmkfstools -D`` prints it as tbzGranularityShift."""
    parent: U32
    """File descriptor of its directory."""
    last_small_block_cluster: U32
    """Cluster of the file's last small file block."""
    unknown_3: Annotated[bytes, Bytes(17)]
    """Not known."""
    block_offset_shift: U8
    """Binary logarithm of the bytes of the file for each pointer, which dissect.vmfs also reads in VMFS 5."""
    unknown_4: U16
    """Not known."""
    large_block_count: U32
    """Number of large file blocks in use."""


DENSE_SUB_BLOCKS: Final = 4
"""Bit of `FileSystemDescriptor.flags`: a pointer to a sub-block has two more bits for the resource."""
DISK_BLOCK: Final = 512
"""Bytes of a lock, and of the structure after it, in VMFS 3 and 5."""
LOCK_IS_FREE: Final = 0
"""`DiskLock.mode` of a lock that nobody holds."""
DIRECTORY_ENTRIES_OFFSET: Final = 0x10000
"""Bytes from the start of a hashed directory to its first block of entries."""
DIRECTORY_VERSIONS: Final = (0xF50001, 0xFDC001)
"""Values of `DirectoryHeader.version`."""


@record
class DirectoryHeader(Record):
    """Header of a hashed directory of VMFS 6; a table of hashes follows, and blocks from 64 KiB on."""

    version: U32
    """One of `DIRECTORY_VERSIONS`."""
    entry_count: U32
    """Number of entries."""
    block_count: U32
    """Number of blocks in use."""
    map_count: U32
    """Number of blocks that are maps of blocks."""
    map_blocks: Annotated[bytes, Bytes(512)]
    """Numbers of those blocks, four bytes each."""


@record
class DirectoryBlockHeader(Record):
    """Header of each block of a hashed directory of VMFS 6."""

    version: U16
    """Version of this structure."""
    type: U16
    """Kind of block: `DIRECTORY_BLOCK_ENTRIES`, 2 for links, or `DIRECTORY_BLOCK_MAP`."""
    slots: U16
    """Number of entries that the block has room for."""
    free_count: U16
    """Number of free slots."""
    free_slots: Annotated[bytes, Bytes(56)]
    """Bitmap of the slots, in which 1 is a free one."""


@record
class HashedDirectoryEntry(Record):
    """Entry of a directory of VMFS 6."""

    type: U32
    """Type, as in `FileMetadata.type`."""
    address: U32
    """Address of the file descriptor; 0 for none."""
    generation: U32
    """Generation of the file descriptor."""
    hash_index: U16
    """Place of the entry in the table of hashes."""
    link_hash: U16
    """Next entry with the same hash."""
    offset: U64
    """Place of the entry itself in the directory."""
    name: Annotated[bytes, Bytes(256)]
    """Name in UTF-8, ended by NUL."""
    unused: Annotated[bytes, Bytes(8)]
    """Not known."""


DIRECTORY_BLOCK_ENTRIES: Final = 1
"""`DirectoryBlockHeader.type` of a block of entries."""
DIRECTORY_BLOCK_MAP: Final = 3
"""`DirectoryBlockHeader.type` of a map, which has four bits for each block, the high ones of a byte for the first of
two blocks; the lower two bits are the block's type, 0 for a free one. vmfs6-tools and dissect.vmfs read it so."""


@record
class ScsiDiskId(Record):
    """Identifier of the disk that a raw device mapping stands for; fields as in `LvmDevice`."""

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
    """Identifier such as a serial number, or as in `LvmDevice`; see `described_disk`."""


@record
class VmfsDirectoryEntry(Record):
    """Entry of a directory of VMFS 3 and 5 (seen)."""

    type: U32
    """Type, as in `FileMetadata.type`."""
    address: U32
    """Address of the file descriptor; 0 for none."""
    generation: U32
    """Generation of the file descriptor."""
    name: Annotated[bytes, Bytes(128)]
    """Name in UTF-8, ended by NUL."""
