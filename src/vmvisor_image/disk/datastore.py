"""A VMFS datastore over several devices: each is a disk image or a partition of one, in any order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vmvisor_image.base.forking import ForkSafeLock
from vmvisor_image.base.limits import Meter
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import Partition
from vmvisor_image.errors import InvalidArgument, NotAFileSystem, Problem
from vmvisor_image.files.file import Extent, File
from vmvisor_image.files.tree import FileTree
from vmvisor_image.streams.opening import SourceLike, path_of
from vmvisor_image.streams.source import Closing, ReadAt
from vmvisor_image.volumes.vmfs.files import FileLock, RawDeviceMapping
from vmvisor_image.volumes.vmfs.volume import VmfsVolume, join_devices


def open_datastore(
    *sources: SourceLike | Image | Partition,
    volume: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Datastore:
    """A VMFS volume on one or several devices.

    Without a device, only the data on it is missing: that is a `Problem`, and an error when it is read.

    Args:
        sources: Sources of its devices: anything that `Image.open` takes, an image (all its VMFS partitions are
            examined), or a partition.
        volume: Label or UUID of the volume to open, where the sources hold several.
        storage_options: See `Image.open`; used for every source that is a path or URL.

    Raises:
        NotAFileSystem: There is no VMFS partition, no volume of that name, or no device with the volume's start.
        InvalidArgument: The sources hold several volumes and `volume` does not choose one, or there are no sources.
        CorruptImage: A source can't be opened.
    """
    if not sources:
        raise InvalidArgument("a datastore needs at least one source")
    images: list[Image] = []
    partitions: list[Partition] = []
    try:
        for source in sources:
            if isinstance(source, Partition):
                partitions.append(source)
                continue
            if isinstance(source, Image):
                image = source
            else:
                options = None if path_of(source) is None else storage_options
                image = Image.open(source, storage_options=options)
                images.append(image)
            partitions += image.partitions
        return Datastore(_devices(partitions, volume), images)
    except BaseException:
        for image in images:
            image.close()
        raise


def _devices(partitions: Sequence[Partition], wanted: str | None) -> list[Partition]:
    """Partitions that are devices of the volume `wanted`, or of the only one."""
    found: dict[str, list[Partition]] = {}
    names: dict[str, set[str]] = {}
    for partition in partitions:
        if partition.is_container or not isinstance(partition.volume, VmfsVolume):
            continue
        key = str(partition.volume.volume_uuid)
        found.setdefault(key, []).append(partition)
        known = (key, partition.volume.label, partition.volume.uuid)
        names.setdefault(key, set()).update(filter(None, known))
    if not found:
        raise NotAFileSystem("no partition of these images holds VMFS: `vmvisor-image info` shows what they hold")
    if wanted is not None:
        found = {key: devices for key, devices in found.items() if wanted in names[key]}
        if not found:
            raise NotAFileSystem(f"no volume {wanted!r}; there are {_listed(names)}")
    if len(found) > 1:
        raise InvalidArgument(f"there are several volumes, say which one is meant: {_listed(names)}")
    return next(iter(found.values()))


def _listed(names: Mapping[str, set[str]]) -> str:
    return "; ".join(" = ".join(sorted(known)) for known in names.values())


class Datastore(Closing):
    """A VMFS volume on its devices; made by `open_datastore`. Any number of threads may read.

    The extents of its files count from the volume's start.
    """

    def __init__(self, devices: Sequence[Partition], images: Sequence[Image] = ()) -> None:
        """A datastore on the given partitions, its devices; `images` are closed with it."""
        self._devices = tuple(devices)
        self._images = tuple(images)
        self._lock = ForkSafeLock()
        self._volume: VmfsVolume | None = None

    @property
    def devices(self) -> tuple[Partition, ...]:
        """Partitions that it lies on."""
        return self._devices

    @property
    def volume(self) -> VmfsVolume:
        """Volume with its headers: version, UUIDs, capacity, the hosts that used it.

        Raises:
            NotAFileSystem: None of the devices holds the volume's start.
        """
        with self._lock:
            if self._volume is None:
                volumes = [device.volume for device in self._devices]
                self._volume = join_devices([volume for volume in volumes if isinstance(volume, VmfsVolume)], self)
            return self._volume

    @property
    def label(self) -> str | None:
        """Name of the datastore."""
        return self.volume.label

    @property
    def kind(self) -> str:
        """Kind of the volume, as in `Partition.kind`."""
        return self.volume.kind

    @property
    def size(self) -> int:
        """Bytes in the volume, including those on missing devices."""
        return self.disk.size

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage and missing devices, as far as it was read, and whether the volume was in use."""
        found = [problem for device in self._devices for problem in device.problems]
        return tuple(dict.fromkeys([*self.volume.problems, *found]))

    @property
    def files(self) -> FileTree:
        """Files of the volume, as in `Partition.files`."""
        return self.volume.files

    @property
    def links(self) -> Mapping[str, str]:
        """Targets of the symbolic links in the directories listed so far, by path."""
        return self.volume.links

    @property
    def raw_devices(self) -> Mapping[str, RawDeviceMapping]:
        """Raw device mappings in the directories listed so far, by path."""
        return self.volume.raw_devices

    def lock_of(self, file: File) -> FileLock | None:
        """Lock that a host held on a file when the images were made; None where no host did.

        Raises:
            CorruptImage: The file's descriptor is damaged.
        """
        return self.volume.lock_of(file)

    @property
    def disk(self) -> ReadAt:
        """Bytes of the volume."""
        return self.volume.logical

    @property
    def meter(self) -> Meter:
        """Counter of the bytes decoded of its first device's image, whose limits apply to its files."""
        return self._devices[0].meter

    @property
    def local_paths(self) -> tuple[str, ...]:
        """Paths of the files that its devices are read from."""
        return tuple(dict.fromkeys(path for device in self._devices for path in device.local_paths))

    def locate(self, token: Any) -> tuple[Extent, ...]:
        """Extents of a file, for `File`."""
        return self.volume.locate(token)

    def open_content(self, token: Any) -> ReadAt:
        """Content of a file, for `File`."""
        return self.volume.open_content(token)

    def close(self) -> None:
        """Close the images that `open_datastore` opened."""
        for image in self._images:
            image.close()

    def __reduce__(self) -> tuple[Callable[..., Datastore], tuple[Any, ...]]:
        return (Datastore, (self._devices, self._images))

    def __repr__(self) -> str:
        return f"<Datastore of {len(self._devices)} devices>"
