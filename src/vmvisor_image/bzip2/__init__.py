"""Random access to bzip2-compressed data; nothing in here knows about disks."""

from vmvisor_image.bzip2.choose import engine
from vmvisor_image.bzip2.index_file import IndexRejected
from vmvisor_image.bzip2.reader import Bzip2Reader, Bzip2Stats
from vmvisor_image.bzip2.salvage import SalvagedBlock

__all__ = ["Bzip2Reader", "Bzip2Stats", "IndexRejected", "SalvagedBlock", "engine"]
