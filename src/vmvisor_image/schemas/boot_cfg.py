"""``boot.cfg``: the files that a boot bank loads, their order, and the state of the bank.

Source of the rules: vmware/esx-boot, mboot/config.c, safeboot/config.c and bootlib/parse.c, read for the facts: a
setting is a line ``KEY=VALUE``; spaces at its ends and around ``=`` do not count, nor does the case of the key; a
line that begins with ``#`` is a comment; unknown keys are ignored; a number has only digits, and an empty value is 0.
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
    """Arguments that follow the name."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Module in `text`, of which the first word is the name and the rest are the arguments."""
        name, *arguments = text.split(maxsplit=1) or ("",)
        return cls(name, "".join(arguments).strip())

    def __str__(self) -> str:
        return f"{self.name} {self.arguments}" if self.arguments else self.name


@dataclass(frozen=True, slots=True)
class BootConfig:
    """Settings of a ``boot.cfg``, with the text of the file."""

    values: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Settings by key in lower case; for a repeated key, the last value."""
    raw: bytes = field(default=b"", repr=False)
    """Content of the file as it was read."""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a configuration; lines that are not settings are ignored, as the boot loader does."""
        values: dict[str, str] = {}
        for line, _ in _lines(data):
            key, value = _setting(line)
            if key is not None:
                values[key] = value
        return cls(MappingProxyType(values), data)

    def to_bytes(self) -> bytes:
        """Content of the file: byte for byte as it was read, except for the changes of `replace`."""
        return self.raw

    def replace(self, changes: Mapping[str, object]) -> Self:
        """Configuration with other values for some keys; every other line stays as it is.

        A repeated key is changed in its last line, the one that counts; a missing key gets a line at the end.

        Args:
            changes: Values by key, without regard to case.

        Raises:
            InvalidArgument: A key is not a word, or a value has a line break or spaces at its ends, or is not a number
                where the key needs one.
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
        """Kernel with its options, or None where the configuration names no kernel."""
        name = self.values.get("kernel", "")
        return BootModule(name, self.values.get("kernelopt", "")) if name else None

    @property
    def modules(self) -> tuple[BootModule, ...]:
        """Modules in load order."""
        items = (item.strip() for item in self.values.get("modules", "").split("---"))
        return tuple(BootModule.parse(item) for item in items if item)

    @property
    def title(self) -> str | None:
        """Title that the loader shows, or None."""
        return self.values.get("title") or None

    @property
    def prefix(self) -> str | None:
        """Directory of relative names, or None for that of the configuration itself."""
        return self.values.get("prefix") or None

    @property
    def build(self) -> str | None:
        """Version and build, such as "4.1.0-260247", or None."""
        return self.values.get("build") or None

    @property
    def unknown(self) -> Mapping[str, str]:
        """Settings that neither loader knows, by key; they are kept."""
        return {key: value for key, value in self.values.items() if key not in NUMBER_KEYS | TEXT_KEYS}

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Settings that the loader would not accept: a missing kernel, or text where a number is needed."""
        found = [
            Problem("boot.cfg", f"{key}: {self.values[key]!r} is not a number")
            for key in self.values
            if key in NUMBER_KEYS and self.number(key) is None
        ]
        if self.kernel is None:
            found.append(Problem("boot.cfg", "kernel: none is named"))
        return tuple(found)

    def number(self, key: str) -> int | None:
        """Number of a setting: 0 for an empty value, None for a missing one and for one that is not all digits."""
        text = self.values.get(key.casefold())
        if text is None:
            return None
        is_number = text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER
        return int(text) if is_number else None if text else 0

    def resolve(self, name: str, directory: str = "") -> str:
        """Path at which the loader looks for a file: an absolute name itself, any other name below the prefix.

        Args:
            name: File name, as the configuration spells it.
            directory: Directory of the configuration, which is used where the configuration sets no prefix.
        """
        folder = self.prefix or directory
        if name.startswith("/") or not folder:
            return name
        return f"{folder.rstrip('/')}/{name}"


def _lines(data: bytes) -> list[tuple[str, str]]:
    """Text and line end of each line."""
    text = data.decode("utf-8", "surrogateescape")  # bytes that are not UTF-8 are written back unchanged
    return [(match.group(1), match.group(2)) for match in _LINE.finditer(text) if match.group()]


def _setting(line: str) -> tuple[str | None, str]:
    """Key and value of a line; the key is None where the line is not a setting."""
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
