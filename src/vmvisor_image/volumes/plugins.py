"""Volume types of other packages, found by their entry points; used only where no built-in type fits.

The last plug-in is of this library: it reads the file systems of guests, by a package that is optional.
"""

from __future__ import annotations

import functools
from typing import Final, Protocol

from vmvisor_image.errors import CorruptImage, Problem
from vmvisor_image.files.file import FileHome
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.volumes.guests import plugin as guests
from vmvisor_image.volumes.volume import Volume

GROUP: Final = "vmvisor_image.volumes"
"""Group of the entry points."""


class VolumeType(Protocol):
    """Object of an entry point: a module, or any other object, with these two functions."""

    def probe(self, disk: ReadAt, start: int, size: int, /) -> bool:
        """Whether a volume of this type is in the partition of `size` bytes from byte `start` of `disk`.

        Should read a few bytes at most; `vmvisor_image.streams.reading.read_up_to` raises no error at the disk's end.
        """
        ...

    def open_volume(self, disk: ReadAt, start: int, size: int, home: FileHome, /) -> Volume:
        """Volume in that partition; a `FileVolume` where it has files, each of them made with `home`.

        Raises:
            CorruptImage: It is damaged beyond opening.
        """
        ...


def open_plugin_volume(
    disk: ReadAt, start: int, size: int, home: FileHome
) -> tuple[Volume | None, tuple[Problem, ...]]:
    """Volume of the first plug-in that recognises one, and the problems of plug-ins and of the data they read.

    Never raises: a fault in one plug-in hides neither the volumes of the others nor the rest of the image.
    """
    plugins, found = _load()
    problems = list(found)
    for name, plugin in (*plugins, ("guests", guests)):
        try:
            if plugin.probe(disk, start, size):
                return plugin.open_volume(disk, start, size, home), tuple(problems)
        except CorruptImage as error:
            problems.append(Problem.of(error))
        except Exception as error:  # noqa: BLE001  # whatever the error, the fault is another package's
            problems.append(_fault(name, error, start))
    return None, tuple(problems)


@functools.cache
def _load() -> tuple[tuple[tuple[str, VolumeType], ...], tuple[Problem, ...]]:
    """Every plug-in by its name, and one problem for each that can't be imported."""
    from importlib.metadata import entry_points

    plugins: list[tuple[str, VolumeType]] = []
    problems: list[Problem] = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            plugins.append((entry.name, entry.load()))
        except Exception as error:  # noqa: BLE001  # as above
            problems.append(_fault(entry.name, error, None))
    return tuple(plugins), tuple(problems)


def _fault(name: str, error: Exception, offset: int | None) -> Problem:
    return Problem(f"volume plug-in {name}", f"it failed: {type(error).__name__}: {error}", offset)
