"""`VmvisorFileSystem`: the partitions and files of an image as an fsspec file system, ``vmvisor://``.

``vmvisor://Hypervisor1/vmkernel.gz::https://host/image.dd.bz2``: the first part of a path is the label or the number of
a partition; the rest is a path in its volume. The arguments are those of fsspec's archive file systems.
"""

from vmvisor_image.fsspec.file_system import VmvisorFileSystem

__all__ = ["VmvisorFileSystem"]
