"""Booting what an image holds: its boot configuration, and the export to a PXE server."""

from vmvisor_image.boot.boot_cfg import BootConfig, BootModule
from vmvisor_image.boot.pxe import PxeExport, export_pxe

__all__ = ["BootConfig", "BootModule", "PxeExport", "export_pxe"]
