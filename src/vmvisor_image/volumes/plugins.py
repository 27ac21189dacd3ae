"""Volume types of other packages, found by their entry points; asked only about what no built-in type recognises."""

from __future__ import annotations

import functools
from typing import Final, Protocol

from vmvisor_image.errors import CorruptImage, Problem
from vmvisor_image.files.file import FileHome
from vmvisor_image.streams.source import ReadAt
from vmvisor_image.volumes.volume import Volume

GROUP: Final = "vmvisor_image.volumes"
"""The entry points' group."""


class VolumeType(Protocol):
    """What an entry point names: a module, or any object, with these two functions."""

    def probe(self, disk: ReadAt, start: int, size: int, /) -> bool:
        """Whether a volume of this type is in the partition of `size` bytes from byte `start` of `disk`.

        Reads a few bytes at most; `vmvisor_image.streams.reading.read_up_to` does not mind the end of the disk.
        """
        ...

    def open_volume(self, disk: ReadAt, start: int, size: int, home: FileHome, /) -> Volume:
        """The volume there; a `FileVolume` where it has files, each of them made with `home`.

        Raises:
            CorruptImage: It is damaged beyond opening.
        """
        ...


def open_plugin_volume(
    disk: ReadAt, start: int, size: int, home: FileHome
) -> tuple[Volume | None, tuple[Problem, ...]]:
    """The volume that the first plug-in recognises, and what was wrong with plug-ins and with what they looked at.

    Never raises: one plug-in's fault hides neither what another one reads nor the rest of the image.
    """
    plugins, found = _load()
    problems = list(found)
    for name, plugin in plugins:
        try:
            if plugin.probe(disk, start, size):
                return plugin.open_volume(disk, start, size, home), tuple(problems)
        except CorruptImage as error:
            problems.append(Problem.of(error))
        except Exception as error:  # noqa: BLE001  # whatever is wrong with it, it is another package's
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
