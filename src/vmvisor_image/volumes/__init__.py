"""Types of volumes in partitions: one module each, which recognises the volume's content and opens it."""

from vmvisor_image.volumes.role import Evidence, Role
from vmvisor_image.volumes.volume import (
    Allocation,
    BaseVolume,
    FileVolume,
    OtherEntry,
    Volume,
    VolumeCheck,
    VolumeEvidence,
)

__all__ = [
    "Allocation",
    "BaseVolume",
    "Evidence",
    "FileVolume",
    "OtherEntry",
    "Role",
    "Volume",
    "VolumeCheck",
    "VolumeEvidence",
]
