"""``boot.cfg``: what a boot bank loads, in which order, and the state of the bank.

Source of the rules: vmware/esx-boot, mboot/config.c, safeboot/config.c and bootlib/parse.c, read for the facts: a
setting is a line ``KEY=VALUE``; spaces at its ends and around ``=`` do not count, nor does the case of the key; a
line that begins with ``#`` is a comment; keys that are not known are passed over; a number is all digits, and an
empty value is 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Self

from vmvisor_image.errors import InvalidArgument, Problem

NUMBER_KEYS: Final = frozenset(
    {
        *("timeout", "nobootif", "noquirks", "norts", "crypto", "runtimewd", "runtimewdtimeout", "tftpblksize"),
        *("errtimeout", "updated", "bootstate", "quickboot"),
    }
)
"""Settings whose value is a number."""
TEXT_KEYS: Final = frozenset({"kernel", "kernelopt", "modules", "title", "prefix", "acpitables", "skip", "build"})
"""Settings whose value is text."""
_LONGEST_NUMBER: Final = 19
_LINE = re.compile(r"([^\r\n]*)(\r\n|\r|\n|\Z)")


@dataclass(frozen=True, slots=True)
class BootModule:
    """A file that the boot loader loads."""

    name: str
    """File name, as the configuration spells it."""
    arguments: str = ""
    """What follows the name."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The first word of `text` is the name, the rest are arguments."""
        name, *arguments = text.split(maxsplit=1) or ("",)
        return cls(name, "".join(arguments).strip())

    def __str__(self) -> str:
        return f"{self.name} {self.arguments}" if self.arguments else self.name


@dataclass(frozen=True, slots=True)
class BootConfig:
    """The settings of a ``boot.cfg``, with the text that they are in."""

    values: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Every setting, keys in lower case; of a key that is there twice, the last one."""
    raw: bytes = field(default=b"", repr=False)
    """The file as it was read."""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a configuration; lines that are no setting are passed over, as the boot loader does."""
        values: dict[str, str] = {}
        for line, _ in _lines(data):
            key, value = _setting(line)
            if key is not None:
                values[key] = value
        return cls(MappingProxyType(values), data)

    def to_bytes(self) -> bytes:
        """The file: byte for byte as it was read, but for what `replace` changed."""
        return self.raw

    def replace(self, changes: Mapping[str, object]) -> Self:
        """A configuration with other values for some keys; every other line stays as it is.

        A key that is there more than once is changed in its last line, the one that counts; one that is not there
        gets a line at the end.

        Args:
            changes: Values by key, without regard to case.

        Raises:
            InvalidArgument: A key is no word, or a value has a line break or is no number where it has to be one.
        """
        wanted = {key.casefold(): _checked(key.casefold(), str(value)) for key, value in changes.items()}
        lines = _lines(self.raw)
        last = {key: number for number, (line, _) in enumerate(lines) if (key := _setting(line)[0]) is not None}
        ending = next((end for _, end in lines if end), "\n")
        for key, value in wanted.items():
            number = last.get(key)
            if number is None:
                if lines and not lines[-1][1]:
                    lines[-1] = (lines[-1][0], ending)
                lines.append((f"{key}={value}", ending))
            elif self.values[key] != value:
                line, end = lines[number]
                lines[number] = (f"{line.partition('=')[0]}={value}", end)
        return self.parse("".join(line + end for line, end in lines).encode("utf-8", "surrogateescape"))

    @property
    def kernel(self) -> BootModule | None:
        """The kernel with its options, or None where none is named."""
        name = self.values.get("kernel", "")
        return BootModule(name, self.values.get("kernelopt", "")) if name else None

    @property
    def modules(self) -> tuple[BootModule, ...]:
        """The modules in load order."""
        items = (item.strip() for item in self.values.get("modules", "").split("---"))
        return tuple(BootModule.parse(item) for item in items if item)

    @property
    def title(self) -> str | None:
        """What the loader shows, or None."""
        return self.values.get("title") or None

    @property
    def prefix(self) -> str | None:
        """The folder that relative names are in, or None for the one of the file itself."""
        return self.values.get("prefix") or None

    @property
    def build(self) -> str | None:
        """Version and build, such as "4.1.0-260247", or None."""
        return self.values.get("build") or None

    @property
    def unknown(self) -> Mapping[str, str]:
        """Settings that neither loader knows; they are kept."""
        return {key: value for key, value in self.values.items() if key not in NUMBER_KEYS | TEXT_KEYS}

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Settings that the loader would not accept: no kernel, or a number that is none."""
        found = [
            Problem("boot.cfg", f"{key}: {self.values[key]!r} is no number")
            for key in self.values
            if key in NUMBER_KEYS and self.number(key) is None
        ]
        if self.kernel is None:
            found.append(Problem("boot.cfg", "kernel: none is named"))
        return tuple(found)

    def number(self, key: str) -> int | None:
        """The number that a setting has: 0 for an empty value, None where it is missing or has anything but digits."""
        text = self.values.get(key.casefold())
        if text is None:
            return None
        is_number = text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER
        return int(text) if is_number else None if text else 0

    def resolve(self, name: str, directory: str = "") -> str:
        """Where the loader looks for a file: an absolute name as it is, another one below the prefix.

        Args:
            name: As the configuration spells it.
            directory: The folder that the configuration is in, which is the prefix where it sets none.
        """
        folder = self.prefix or directory
        if name.startswith("/") or not folder:
            return name
        return f"{folder.rstrip('/')}/{name}"


def _lines(data: bytes) -> list[tuple[str, str]]:
    """Each line and its end."""
    text = data.decode("utf-8", "surrogateescape")  # whatever is no UTF-8 is written back as it was
    return [(match.group(1), match.group(2)) for match in _LINE.finditer(text) if match.group()]


def _setting(line: str) -> tuple[str | None, str]:
    """Key and value of a line; None for one that is no setting."""
    key, separator, value = line.replace("\0", "").partition("=")
    if not separator or line.lstrip().startswith("#"):
        return None, ""
    return key.strip().casefold(), value.strip()


def _checked(key: str, value: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]+", key):
        raise InvalidArgument(f"a key of boot.cfg is one word, not {key!r}")
    if re.search(r"[\r\n\0]", value) or value != value.strip():
        raise InvalidArgument(f"a value of boot.cfg is one line without spaces at its ends, not {value!r}")
    if key in NUMBER_KEYS and not (value.isascii() and value.isdigit()):
        raise InvalidArgument(f"{key} of boot.cfg is a number, not {value!r}")
    return value
