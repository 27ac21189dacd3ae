"""The registry of volumes."""

from __future__ import annotations

from typing import Final

from vmvisor_image.volumes import iso9660, vmkcore
from vmvisor_image.volumes.fat import volume as fat
from vmvisor_image.volumes.vmfs import volume as vmfs
from vmvisor_image.volumes.volume import VolumeFormat

VOLUMES: Final[tuple[VolumeFormat, ...]] = (fat, iso9660, vmfs, vmkcore)
"""Types of volumes that are read, in the order in which they are tried."""
