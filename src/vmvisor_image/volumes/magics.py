"""Magics of all formats, of those that are read and of those that are not."""

from __future__ import annotations

from typing import Final

from vmvisor_image.archives.formats import ARCHIVES
from vmvisor_image.compressions.formats import COMPRESSIONS
from vmvisor_image.examine.signatures import in_order
from vmvisor_image.layers.virtual import VIRTUAL_DISKS
from vmvisor_image.volumes.find import VOLUMES

SIGNATURES: Final = in_order((*COMPRESSIONS, *ARCHIVES, *VIRTUAL_DISKS, *VOLUMES))
"""All magics that are looked for, each once, in the order in which they are tried."""
