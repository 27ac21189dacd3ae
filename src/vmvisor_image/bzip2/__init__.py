"""Random access to bzip2-compressed data; nothing in here knows about disks."""

from vmvisor_image.bzip2.reader import Bzip2Reader, Bzip2Stats

__all__ = ["Bzip2Reader", "Bzip2Stats"]
