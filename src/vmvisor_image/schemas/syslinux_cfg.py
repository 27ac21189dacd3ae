"""``isolinux.cfg``, ``syslinux.cfg`` and ``pxelinux.cfg/default``: kernels that can be booted, and their arguments.

Source: SYSLINUX's documentation, doc/syslinux.txt of 3.86: a line has a keyword, spaces, and a value up to its end;
the case of keywords does not count; ``#`` begins a comment; settings before the first LABEL apply to all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

_OF_ENTRY: Final = frozenset(
    {
        *("kernel", "append", "linux", "com32", "initrd", "ipappend", "sysappend", "boot", "bss", "pxe", "fdimage"),
        *("comboot", "config", "localboot", "text", "endtext", "menu"),
    }
)
"""Keywords that belong to the LABEL above them, as most others do not."""


@dataclass(frozen=True, slots=True)
class BootEntry:
    """Settings of one LABEL."""

    label: str
    kernel: str
    """File that SYSLINUX loads."""
    append: str
    """Arguments that SYSLINUX passes to it, or "" for none."""

    @property
    def modules(self) -> tuple[str, ...]:
        """Items of `append`, for an entry that loads a multiboot loader: file names, each with its arguments."""
        return tuple(filter(None, (item.strip() for item in self.append.split("---"))))


@dataclass(frozen=True, slots=True)
class SyslinuxConfig:
    """Entries of a configuration that can be booted; menus and messages are ignored."""

    default: str | None
    """Label, or command, that is booted when nobody chooses."""
    entries: tuple[BootEntry, ...]
    """Entries in the order of the file."""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a configuration; lines that are not settings are ignored."""
        default: str | None = None
        append_for_all = ""
        found: list[dict[str, str]] = []
        for line in data.decode("utf-8", "surrogateescape").splitlines():
            keyword, _, value = line.strip().replace("\t", " ").partition(" ")
            value = value.strip()
            match keyword.casefold():
                case "label":
                    found.append({"label": value, "kernel": value})
                case "default":
                    default = value
                case "kernel" | "com32" | "linux" if found:
                    found[-1]["kernel"] = value
                case "append" if found:
                    found[-1]["append"] = "" if value == "-" else value
                case "append":
                    append_for_all = value
        entries = tuple(BootEntry(e["label"], e["kernel"], e.get("append", append_for_all)) for e in found)
        return cls(default, entries)

    @property
    def default_entry(self) -> BootEntry | None:
        """Entry with the label of `default`, which is booted when nobody chooses; None where there is none."""
        wanted = (self.default or "").casefold()
        return next((entry for entry in self.entries if entry.label.casefold() == wanted), None)

    def multiboot_entry(self) -> BootEntry | None:
        """Entry that loads a hypervisor: the default entry where it does, otherwise the first that does, or None."""
        ordered = [entry for entry in (self.default_entry, *self.entries) if entry is not None]
        return next((entry for entry in ordered if "mboot" in entry.kernel.casefold() and entry.append), None)


def add_entry(data: bytes, label: str, lines: Sequence[str]) -> bytes:
    """Configuration with an entry added, in the place of an entry with the same label where there is one.

    All other lines stay as they are, byte for byte. In a configuration without entries it becomes the default one, in
    the place of a ``DEFAULT`` that names an entry that is not there.

    Args:
        data: The configuration; empty for a new one.
        label: Label of the entry, without regard to case.
        lines: Settings of the entry, one a line.
    """
    added = "".join((f"label {label}\n", *(f"  {line}\n" for line in lines))).encode("utf-8", "surrogateescape")
    kept: list[bytes] = []
    if not SyslinuxConfig.parse(data).entries:
        settings = data.splitlines(keepends=True)
        data = b"".join(line for line in settings if line.lower().split()[:1] != [b"default"])
        kept.append(f"default {label}\n".encode("utf-8", "surrogateescape"))
    place: int | None = None
    is_replaced = False
    for line in data.splitlines(keepends=True):
        keyword, _, value = line.decode("utf-8", "surrogateescape").strip().replace("\t", " ").partition(" ")
        if keyword.casefold() == "label":
            is_replaced = value.strip().casefold() == label.casefold()
            place = len(kept) if is_replaced and place is None else place
        elif is_replaced:  # a line that is not indented may be a setting that applies to all
            is_replaced = line[:1].isspace() or keyword.casefold() in _OF_ENTRY
        if not is_replaced:
            kept.append(line)
    place = len(kept) if place is None else place
    if place and not kept[place - 1].endswith((b"\n", b"\r")):
        kept[place - 1] += b"\n"
    return b"".join((*kept[:place], added, *kept[place:]))
