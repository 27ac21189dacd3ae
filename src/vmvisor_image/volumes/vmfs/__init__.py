"""VMFS 3, 5, 6 and VMFS-L."""
