"""What a partition may hold: one module each, which says whether it recognises the content and opens it."""

from vmvisor_image.volumes.volume import FileVolume, Volume

__all__ = ["FileVolume", "Volume"]
