"""Booting an image's content: its boot configuration, its boot banks, and the export to a PXE server."""

from vmvisor_image.schemas.boot_cfg import BootConfig, BootModule

__all__ = ["BootConfig", "BootModule"]
