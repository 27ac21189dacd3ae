"""Layout of what the commands print: tables and text that fit the terminal's width, and are whole without a terminal.

Rows and problems are one line each where standard output is no terminal, so that other programs can read them; see
docs/adr/0027-output-fits-the-terminal.md.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from vmvisor_image.base.names import printable
from vmvisor_image.errors import Problem
from vmvisor_image.faces.shared import GAP, Block, Column, Fitted, columns_of, cut, fit, is_wide, padded

WITHOUT_TERMINAL: Final = 80
"""Characters in a line of running text where standard output is no terminal."""
_FILLER: Final = "\0"
"""Second half of a wide character; what is printed never has a control character itself."""
_NARROWEST: Final = 20
"""Characters below which a terminal's width is not believed."""


def table_width() -> int | None:
    """Characters in a line of a table or a list; None, for no end, where standard output is no terminal."""
    return max(_NARROWEST, shutil.get_terminal_size().columns) if sys.stdout.isatty() else None


def text_width() -> int:
    """Characters in a line of running text."""
    return table_width() or WITHOUT_TERMINAL


def wrapped(text: str, indent: str = "", *, hanging: str | None = None, width: int | None) -> list[str]:
    """Lines of `text`, whose invisible characters are shown by their codes; words are not broken.

    Args:
        text: Text of one paragraph.
        indent: Start of the first line.
        hanging: Start of the other lines; None for as many spaces as `indent` is long.
        width: Characters in a line; None for a single line.
    """
    shown = printable(text)
    if width is None or columns_of(indent) + columns_of(shown) <= width:
        return [f"{indent}{shown}".rstrip()]
    lines = textwrap.wrap(
        _filled(shown),
        width,
        initial_indent=_filled(indent),
        subsequent_indent=" " * columns_of(indent) if hanging is None else hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_FILLER, "") for line in lines]


def _filled(text: str) -> str:
    """Text of as many characters as it takes columns, as `textwrap` counts characters."""
    if text.isascii():
        return text
    return "".join(f"{character}{_FILLER}" if is_wide(character) else character for character in text)


def print_item(text: str, indent: str, *, hanging: str | None = None) -> None:
    """Print an item of a list, which is one line where standard output is no terminal."""
    print("\n".join(wrapped(text, indent, hanging=hanging, width=table_width())))


def print_blocks(blocks: Sequence[Block]) -> None:
    """Print the blocks of an explanation, wrapped."""
    for block in blocks:
        print(f"\n  {block.heading}")
        text = block.lines if block.is_list else (" ".join(block.lines),)
        for line in text:
            print("\n".join(wrapped(line, "    - " if block.is_list else "    ", width=text_width())))


def table_lines(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> Iterator[str]:
    """Lines of a table with its heading, and a last one that names the columns that are left out, if any are."""
    shown = [[printable(cell) for cell in row] for row in rows]
    fitted = fit(columns, shown, None if width is None else width - len(GAP))
    yield row_line(columns, [column.heading for column in columns], fitted)
    for row in shown:
        yield row_line(columns, row, fitted)
    if fitted.left_out:
        yield from left_out_lines(fitted, width)


def row_line(columns: Sequence[Column], row: Sequence[str], fitted: Fitted, indent: str = GAP) -> str:
    """Line of a table."""
    cells = []
    for at, width in fitted.kept:
        text = row[at] if columns[at].shortest is None else cut(row[at], width)
        cells.append(padded(text, width, to_the_right=columns[at].is_number))
    return f"{indent}{GAP.join(cells)}".rstrip()


def left_out_lines(fitted: Fitted, width: int | None, indent: str = GAP) -> list[str]:
    """Lines that name the columns that are left out."""
    *first, last = fitted.left_out
    names = f"{', '.join(first)} and {last}" if first else last
    return wrapped(f"(no room for {names}: widen the terminal, or pipe this to a file)", indent, width=width)


def complain(problems: Sequence[Problem], what: str = "") -> None:
    """Print each problem to standard error."""
    for problem in problems:
        print(f"vmvisor-image: {what}{printable(str(problem))}", file=sys.stderr)
