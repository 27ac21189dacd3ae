"""What may wrap a disk image: one module each, which recognises its wrapping and opens what is inside.

Compressions (bzip2, gzip, xz, zstd), virtual disks (qcow2, VMDK, VHD, VHDX), and containers that hold other files, too
(ISO 9660, tar, zip), of which `vmvisor_image.layers.containers` picks the one that is the disk.
"""
