"""A browser of an image in the terminal: a tree of partitions and files on the left, details on the right.

Needs Textual. What is read is what is shown: a directory when it is opened, bytes when they are looked at; reading is
done in threads, so that keys are answered while an image is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import ClassVar, TypeAlias

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Footer, Static, Tree
from textual.widgets.tree import TreeNode
from textual.worker import get_current_worker

from vmvisor_image.base.names import printable
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import Partition
from vmvisor_image.errors import NotAFileSystem, Problem, VmvisorImageError
from vmvisor_image.examine.hexdump import Hexdump, hexdump
from vmvisor_image.examine.hexdump import printable as printable_bytes
from vmvisor_image.faces.saving import SaveScreen
from vmvisor_image.files.file import Directory, File
from vmvisor_image.machines.file_names import kind_by_name
from vmvisor_image.volumes.role import Role

_PAGE = 512
"""Bytes in a hexdump."""
_MOST_NODES = 2000
"""Entries of a directory in the tree."""
_WIDEST = 78
"""Columns of a line of a hexdump with 16 bytes; where there are fewer, it has 8 bytes."""
_COLORS = ("black on yellow", "black on cyan")
"""Styles of fields that follow each other."""
_MIB = 1 << 20
_Place: TypeAlias = Image | Partition | Directory | File
_Entry: TypeAlias = tuple[Text, _Place | None, bool]
"""Label of a node, what it stands for, None for a message, and whether there can be nodes below it."""


class _Places(Tree[_Place | None]):
    """The tree, whose keys are named at the bottom of the screen."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "Open")]


class Browser(App[None]):
    """The browser; `run` shows it until q is pressed. The caller closes the image."""

    CSS = """
    Tree { width: 30%; border-right: solid $primary; }
    VerticalScroll { width: 1fr; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "show('about')", "About"),
        Binding("h", "show('hexdump')", "Hexdump"),
        Binding("n", "page(1)", "Next"),
        Binding("b", "page(-1)", "Back"),
        Binding("e", "show('explanation')", "Explain"),
        Binding("s", "save", "Save"),
        Binding("q", "quit", "Quit"),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, image: Image, name: str) -> None:
        """A browser of an open image; `name` stands above its partitions."""
        super().__init__()
        self._image = image
        self._view = "about"
        self._offset = 0
        self.title = name
        self._tree = _Places(Text(printable(name)), data=image)
        self._details = Static()
        self._scroll = VerticalScroll(self._details, can_focus=False)

    def compose(self) -> ComposeResult:
        """Widgets of the screen."""
        yield Horizontal(self._tree, self._scroll)
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look for partitions."""
        self._tree.focus()
        self._tree.root.expand()

    def on_tree_node_expanded(self, event: Tree.NodeExpanded[_Place | None]) -> None:
        """Read what is below a node, when it is opened for the first time."""
        node = event.node
        if node.data is not None and not node.children:
            self.run_worker(partial(self._fill, node, node.data), thread=True)

    def on_tree_node_highlighted(self, event: Tree.NodeHighlighted[_Place | None]) -> None:
        """Show the node that the cursor is on."""
        self._offset = 0
        self._refresh_details(event.node.data)

    def on_resize(self) -> None:
        """Draw the details anew for another width."""
        self._refresh_details(self._place())

    def action_show(self, view: str) -> None:
        """Change what is shown of the node that the cursor is on."""
        self._view, self._offset = view, 0
        self._refresh_details(self._place())

    def action_page(self, step: int) -> None:
        """Go on or back in the hexdump."""
        if self._view == "hexdump":
            self._offset = max(0, self._offset + step * _PAGE)
            self._refresh_details(self._place())

    def action_save(self) -> None:
        """Ask for a path, and write to it what the cursor is on."""
        place = self._place()
        if isinstance(place, Image):
            self.notify("Go to a partition, a directory or a file to save it.")
        elif place is not None:
            try:
                self.push_screen(SaveScreen(place))
            except (VmvisorImageError, OSError) as error:
                self.notify(printable(str(error)), severity="error", markup=False)

    def _place(self) -> _Place | None:
        node = self._tree.cursor_node
        return None if node is None else node.data

    def _fill(self, node: TreeNode[_Place | None], place: _Place) -> None:
        """Add what is below a node, each entry as it is found; damage is an entry of its own."""
        before = set(self._image.known_problems)
        empty = True
        try:
            for number, entry in enumerate(_below(place)):
                if get_current_worker().is_cancelled:  # q was pressed
                    return
                if number == _MOST_NODES:
                    self.call_from_thread(self._add, node, (Text("… and more"), None, False))
                    break
                self.call_from_thread(self._add, node, entry)
                empty = False
        except (VmvisorImageError, OSError) as error:
            self.call_from_thread(self._add, node, (_wrong(str(error)), None, False))
            empty = False
        found = [problem for problem in self._image.known_problems if problem not in before]
        wrong = dict.fromkeys([*_problems(place), *found])
        for problem in wrong:
            self.call_from_thread(self._add, node, (_wrong(str(problem)), None, False))
        if empty and not wrong:
            text = "empty, or damaged: a on the partition shows its damage" if _is_damaged(node) else "empty"
            self.call_from_thread(self._add, node, (Text(text, "dim"), None, False))

    @staticmethod
    def _add(node: TreeNode[_Place | None], entry: _Entry) -> None:
        label, place, has_more = entry
        node.add(label, place, allow_expand=has_more)

    def _refresh_details(self, place: _Place | None) -> None:
        width = self._scroll.scrollable_content_region.width
        self.run_worker(partial(self._show, place, self._view, self._offset, width), thread=True, group="details")

    def _show(self, place: _Place | None, view: str, offset: int, width: int) -> None:
        """Read what the details are of, and show them where they are still asked for."""
        shown: RenderableType = ""
        if place is not None:
            try:
                shown = _VIEWS[view](place, offset, width)
            except (VmvisorImageError, OSError) as error:
                shown = _wrong(str(error))
        self.call_from_thread(self._put, place, view, offset, shown)

    def _put(self, place: _Place | None, view: str, offset: int, shown: RenderableType) -> None:
        if (self._place(), self._view, self._offset) == (place, view, offset):
            self._details.update(shown)
            self._scroll.scroll_home(animate=False)


def _below(place: _Place) -> Iterable[_Entry]:
    """Entries below a node; a partition is read as far as its label takes."""
    if isinstance(place, Image):
        found = False
        for partition in place.partitions:
            found = True
            if not partition.is_container:
                text = f"{partition.key} {partition.label or partition.type.name}"
                yield Text(printable(text)), partition, _has_files(partition)
        if not found:
            yield Text("no partitions; h shows the bytes of the disk", "dim"), None, False
    elif isinstance(place, Partition | Directory):
        root = place.files.root if isinstance(place, Partition) else place
        for entry in root.iterdir():
            is_directory = isinstance(entry, Directory)
            yield Text(printable(entry.name) + "/" * is_directory), entry, is_directory


def _is_damaged(node: TreeNode[_Place | None]) -> bool:
    """Whether the partition that a node is in is known to be damaged."""
    here: TreeNode[_Place | None] | None = node
    while here is not None and not isinstance(here.data, Partition):
        here = here.parent
    return here is not None and isinstance(here.data, Partition) and bool(here.data.known_problems)


def _has_files(partition: Partition) -> bool:
    """Whether a partition can be opened; also where it is damaged, which is then shown below it."""
    try:
        return getattr(partition.volume, "files", None) is not None
    except NotAFileSystem:
        return False
    except VmvisorImageError:
        return True


def _problems(place: _Place) -> tuple[Problem, ...]:
    """Problems to show below a node that was opened, beside those that opening it has found."""
    if isinstance(place, Image):
        return place.partitions.problems
    return place.known_problems if isinstance(place, Partition) else ()


def _about(place: _Place, *_: int) -> RenderableType:
    """What a node stands for, without reading more than the tree did, but for the role of a partition."""
    rows: list[tuple[str, object]]
    if isinstance(place, Image):
        layers = " in ".join(layer.kind for layer in reversed(place.layers))
        size = f"{place.size:,} bytes" if place.size_is_known else "not known before all is decoded"
        rows = [("Layers", f"a disk in {layers}" if layers else "a bare disk"), ("Size", size), ("Table", place.scheme)]
    elif isinstance(place, Partition):
        rows = [
            ("Partition", place.key),
            ("Label", place.label or "none"),
            ("Type", place.type),
            ("Start", f"byte {place.start:#x}, sector {place.first_lba:,}"),
            ("Size", f"{place.size:,} bytes, {place.size / _MIB:,.1f} MiB"),
            ("Kind", place.kind),
            ("Role", "not known" if place.role is Role.UNKNOWN else place.role.value),
        ]
    else:
        rows = [("Path", place.path or "/"), ("Written", place.modified or "not known")]
        if isinstance(place, File):
            rows.insert(1, ("Size", f"{place.size:,} bytes"))
            if (kind := kind_by_name(place.name)) is not None:
                rows.append(("Kind", kind))
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(Text(name, "bold"), Text(printable(str(value))))
    known = place.known_problems if isinstance(place, Image | Partition) else ()
    return Group(table, *(_wrong(str(problem)) for problem in known))


def _hexdump(place: _Place, offset: int, width: int) -> RenderableType:
    """Bytes from an offset, with the fields of the structures in them."""
    if isinstance(place, Directory):
        return Text("A directory has no bytes of its own to show: choose a file, or the partition.")
    dump = place.hexdump(offset, _PAGE) if isinstance(place, Partition) else hexdump(place, offset, _PAGE)
    if not dump.data:
        return Text(f"The end is before byte {offset:#x}; b goes back.")
    return Group(_lines(dump, 16 if width >= _WIDEST else 8), _fields(dump))


def _lines(dump: Hexdump, length: int) -> Text:
    """Lines of a hexdump, of so many bytes, with the fields coloured; equal lines once, then a star."""
    colors = {at: _COLORS[n % 2] for n, mark in enumerate(dump.marks) for at in range(mark.start, mark.end)}
    text, before, starred = Text(no_wrap=True), b"", False
    for at in range(0, len(dump.data), length):
        data = dump.data[at : at + length]
        if data == before:
            text.append("" if starred else "*\n")
            starred = True
            continue
        before, starred = data, False
        text.append(f"{dump.offset + at:08x}", "dim")
        for place, byte in enumerate(data, dump.offset + at):
            text.append(" " if (place - dump.offset) % 8 else "  ")
            text.append(f"{byte:02x}", colors.get(place))
        text.append(" " * (3 * (length - len(data)) + (length - len(data)) // 8))
        text.append(f"  |{printable_bytes(data)}|\n")
    return text


def _fields(dump: Hexdump) -> RenderableType:
    """Table of the fields that are marked in a hexdump."""
    if not dump.marks:
        return ""
    table = Table("Byte", "Structure", "Field", "Value", box=None, padding=(0, 2, 0, 0))
    for mark in dump.marks:
        table.add_row(f"{mark.start:#x}", mark.record, mark.field, Text(printable(mark.value)))
    return table


def _explanation(place: _Place, *_: int) -> RenderableType:
    """What a partition is for, and why; of other places, where to look for it."""
    if isinstance(place, Partition):
        return Text(printable(place.explain()))
    return Text("There is an explanation of each partition: go to one.")


def _wrong(text: str) -> Text:
    return Text(f"! {printable(text)}", "bold red")


_VIEWS: dict[str, Callable[[_Place, int, int], RenderableType]] = {
    "about": _about,
    "hexdump": _hexdump,
    "explanation": _explanation,
}
