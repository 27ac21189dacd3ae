"""Draws docs/pictures: ``python tools/pictures.py``; a test holds that they are as this draws them.

The pictures are made for a column of text and for a telephone: 560 units wide, with letters of 15. Colours are
variables, light and dark, after what the page says (as in notebooks), else after what the reader's system says.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Final

from vmvisor_image.testing.forge import ESX_35

FOLDER: Final = Path(__file__).resolve().parents[1] / "docs" / "pictures"
WIDTH: Final = 560
_LIGHT: Final = "--ink:#1b1b1b;--dim:#5f6368;--line:#9aa0a6;--soft:#f1f3f5;--bright:#1a5fb4"
_DARK: Final = "--ink:#e8eaed;--dim:#a9afb5;--line:#73787d;--soft:#2a2d31;--bright:#8ab4f8"
_STYLE: Final = (
    f"svg.picture{{{_LIGHT};font:15px system-ui,sans-serif;fill:var(--ink);display:block;max-width:{WIDTH}px}}"
    f"@media(prefers-color-scheme:dark){{svg.picture{{{_DARK}}}}}"
    f'[data-jp-theme-light="true"] svg.picture{{{_LIGHT}}}[data-jp-theme-light="false"] svg.picture{{{_DARK}}}'
    "svg.picture .dim{fill:var(--dim);font-size:14px}svg.picture .box{fill:var(--soft);stroke:var(--line)}"
    "svg.picture .line{fill:none;stroke:var(--line);stroke-width:1.5}svg.picture .head{font-weight:600}"
    "svg.picture .back{fill:none;stroke:var(--bright);stroke-width:1.5;stroke-dasharray:5 4}"
    "svg.picture .bright{fill:var(--bright)}"
)

ROAD: Final = (
    ("source", "where the bytes are", "a path, a URL, bytes, any ReadAt"),
    ("layers", "what wraps the disk", "bzip2, gzip, xz, zstd; CD, tar, zip; virtual disks"),
    ("partition table", "which bytes are which partition", "MBR, GPT, or none"),
    ("volume", "what a partition holds", "FAT, VMFS, ISO 9660, a core dump"),
    ("files", "what a user reads", "paths, streams, extents, archives in them"),
    ("boot export", "what a PXE server serves", "modules in order, PXELINUX, iPXE"),
)

BLOCKS: Final = 187
BLOCKS_DECODED: Final = (
    (1, "#1a5fb4", 'partitions["Hypervisor1"], and the names in it'),
    (4, "#00838f", 'files["vmkernel.gz"].read_bytes()'),
    (51, "#8e5a8a", "every file of Hypervisor1"),
)
"""Blocks of the image of `make bench` ("filled store") that each decodes, by `Bzip2Reader.stats`, 2026-11-25."""


CHAIN: Final = ((4, 9, 1, 7), (0, 10, 5, 2), (8, 3, 11, 6))
"""Rows of a small block in the order of its bytes, cut where a cursor starts."""
CURSORS: Final = ("#1a5fb4", "#00838f", "#8e5a8a")


def picture(height: float, title: str, parts: Iterator[str]) -> str:
    inside = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="picture" viewBox="0 0 {WIDTH} {height:g}" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n{inside}\n</svg>\n"
    )


def text(x: float, y: float, words: str, kind: str = "", **attributes: str) -> str:
    more = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
    return f'<text x="{x:g}" y="{y:g}"{f" class={chr(34)}{kind}{chr(34)}" if kind else ""}{more}>{escape(words)}</text>'


def road() -> str:
    """From source to boot export, a box for each room."""
    box, gap, left, right = 62, 24, 1, 470

    def parts() -> Iterator[str]:
        for number, (name, question, examples) in enumerate(ROAD):
            y = number * (box + gap) + 1
            yield f'<rect class="box" x="{left}" y="{y}" width="{right}" height="{box}" rx="6"/>'
            yield text(left + 14, y + 26, name, "head")
            yield text(left + 150, y + 26, question)
            yield text(left + 14, y + 48, examples, "dim")
            if number < len(ROAD) - 1:
                x, end = 60, y + box + gap
                yield f'<path class="line" d="M{x} {y + box}V{end - 2}m-5 -6l5 6l5 -6"/>'
        first, files = 1 + box / 2, 4 * (box + gap) + 1 + box / 2
        x = right + 2
        yield f'<path class="back" d="M{x} {files}h18q14 0 14 -14V{first + 14}q0 -14 -14 -14h-16m7 -6l-7 6l7 6"/>'
        middle = (first + files) / 2
        yield text(x + 52, middle, "a file opens as an image again", "bright", text_anchor="middle").replace(
            "<text ", f'<text transform="rotate(90 {x + 52:g} {middle:g})" '
        )

    return picture(
        len(ROAD) * (box + gap) - gap + 2, "source, layers, partition table, volume, files, boot export", parts()
    )


def disk() -> str:
    """The disk of ESX 3i 3.5, to scale but for its smallest partition."""
    rows = (
        ("4", "Hypervisor0", ESX_35.boot, "#4169a8", "boot: the loader, mboot.c32"),
        ("5", "Hypervisor1", ESX_35.bank, "#2e7d32", "boot bank: the hypervisor and its modules"),
        ("6", "Hypervisor2", ESX_35.alternate_bank, "#558b57", "alternate boot bank, empty as shipped"),
        ("7", "no label", ESX_35.coredump, "#c62828", "VMKCORE: where a crash is dumped; no VMFS"),
        ("8", "Hypervisor3", ESX_35.store, "#8e5a8a", "store: VMware Tools, the client"),
    )
    top, height, row = 30, 420, 62

    def parts() -> Iterator[str]:
        yield text(1, 16, "750 MiB", "dim")
        scale = height / ESX_35.sectors
        extended, length = ESX_35.extended
        yield f'<rect class="box" x="1" y="{top}" width="84" height="{height}"/>'
        yield (
            f'<rect class="line" stroke-dasharray="4 3" x="5" y="{top + extended * scale:.1f}" width="76"'
            f' height="{length * scale:.1f}"/>'
        )
        for number, (partition, label, (first, sectors), color, use) in reversed(list(enumerate(rows))):
            y, tall = top + first * scale, max(5.0, sectors * scale)
            at = top + number * 78 + 18
            yield f'<rect x="10" y="{y:.1f}" width="66" height="{tall - 1:.1f}" fill="{color}"/>'
            middle = y + tall / 2
            yield f'<path class="line" d="M78 {middle:.1f}L118 {at + 6}h12"/>'
            yield f'<rect x="134" y="{at - 6}" width="5" height="{row - 16}" fill="{color}"/>'
            size = f"{sectors / 2048:.0f} MiB from sector {first}"
            yield text(150, at + 8, f"{partition}  {label}", "head")
            yield text(290, at + 8, size, "dim")
            yield text(150, at + 30, use)
        yield text(1, top + height + 24, "dashed: extended partition 1, which holds 5 to 8", "dim")

    return picture(top + height + 34, "The partitions of an ESX 3i 3.5 disk", parts())


def look_up() -> str:
    """Which of its bzip2 blocks are decoded for what."""
    columns, cell, gap = 34, 14, 2

    def parts() -> Iterator[str]:
        yield text(1, 16, f"{BLOCKS} bzip2 blocks of a 156 MB image, in order", "dim")
        for block in range(BLOCKS):
            row, column = divmod(block, columns)
            color = next((color for count, color, _ in BLOCKS_DECODED if block < count), None)
            paint = f'fill="{color}"' if color else 'class="box"'
            yield (
                f'<rect x="{1 + column * (cell + gap)}" y="{28 + row * (cell + gap)}" width="{cell}" height="{cell}"'
                f' rx="2" {paint}/>'
            )
        y = 28 + -(-BLOCKS // columns) * (cell + gap) + 10
        for number, (count, color, what) in enumerate(BLOCKS_DECODED):
            at = y + number * 26
            yield f'<rect x="1" y="{at}" width="{cell}" height="{cell}" rx="2" fill="{color}"/>'
            yield text(24, at + 12, f"{count}" if count < 2 else f"1 to {count}")
            yield text(90, at + 12, what)
        at = y + 78
        yield f'<rect class="box" x="1" y="{at}" width="{cell}" height="{cell}" rx="2"/>'
        yield text(24, at + 12, "never decoded for these", "dim")

    rows = -(-BLOCKS // columns)
    return picture(28 + rows * (cell + gap) + 10 + 100, "How many blocks a look-up decodes", parts())


def cursors() -> str:
    """The chain of the inverse transform, and what one cursor and three of them wait for."""
    cell, width, row_y = 46, 43, 172

    def middle(row: int) -> float:
        return 1 + row * cell + width / 2

    def step(x: float, y: float, row: int, colour: str) -> Iterator[str]:
        yield f'<rect x="{x:g}" y="{y:g}" width="{width}" height="24" rx="4" fill="{colour}"/>'
        yield text(x + width / 2, y + 17, str(row), text_anchor="middle", style="fill:#fff")

    def parts() -> Iterator[str]:
        yield text(1, 16, "The rows of a block: each names the next one", "head")
        for piece, colour in zip(CHAIN, CURSORS, strict=True):
            for row, after in pairwise(piece):
                start, end = middle(row), middle(after)
                top = row_y - 12 - abs(end - start) * 0.62
                yield (
                    f'<path d="M{start:g} {row_y - 2}Q{(start + end) / 2:g} {top:g} {end:g} {row_y - 2}"'
                    f' fill="none" stroke="{colour}" stroke-width="1.8"/>'
                )
                yield f'<circle cx="{end:g}" cy="{row_y - 3}" r="3.5" fill="{colour}"/>'
        for piece, colour in zip(CHAIN, CURSORS, strict=True):
            for row in piece:
                yield from step(1 + row * cell, row_y, row, colour)
        for number, piece in enumerate(CHAIN):
            words = ("start 1, the origin", "start 2", "start 3")[number]
            anchor = "middle" if piece[0] else "start"
            yield text(middle(piece[0]) if piece[0] else 1, row_y + 42, words, "dim", text_anchor=anchor)
        y = row_y + 78
        yield text(1, y, "One cursor: each step waits for the memory of the one before", "head")
        for number, (row, colour) in enumerate(
            (row, colour) for piece, colour in zip(CHAIN, CURSORS, strict=True) for row in piece
        ):
            yield from step(1 + number * cell, y + 10, row, colour)
        y += 72
        yield text(1, y, "Three cursors: the waits overlap", "head")
        for line, (piece, colour) in enumerate(zip(CHAIN, CURSORS, strict=True)):
            for number, row in enumerate(piece):
                yield from step(1 + number * cell, y + 10 + line * 28, row, colour)
        yield text(4 * cell + 14, y + 27, "each ends where another one started,", "dim")
        yield text(4 * cell + 14, y + 47, "which says how the pieces follow:", "dim")
        yield text(4 * cell + 14, y + 67, "the first from the origin, then 2, then 3", "dim")

    return picture(row_y + 248, "Cursors that follow the chain of the inverse transform", parts())


PICTURES: Final = {"road.svg": road, "disk.svg": disk, "look-up.svg": look_up, "cursors.svg": cursors}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (FOLDER / name).write_text(draw(), encoding="utf-8")
