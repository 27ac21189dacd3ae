"""Layers around a disk image; each kind has a module that recognises it and opens its content.

The kinds are compressions (bzip2, gzip, xz, zstd), virtual disks (qcow2, VMDK, VHD, VHDX), and containers that may also
hold other files (ISO 9660, tar, zip), in which `vmvisor_image.layers.containers` finds the disk.
"""
