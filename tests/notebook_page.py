"""The notebook of the docs, executed, as a page and a picture; ``python -m tests.notebook_page`` makes the picture."""

from __future__ import annotations

import hashlib
import io
import subprocess
from pathlib import Path
from typing import Any, Final

from tests.support import HANGS, REPOSITORY, require_tool

NOTEBOOK: Final = REPOSITORY / "docs/notebooks/unknown-partition.ipynb"
PICTURE: Final = NOTEBOOK.with_suffix(".png")
_SIZE: Final = (1000, 1560)
_COLORS: Final = 56
_PAGE: Final = """<!DOCTYPE html><html><head><meta charset="utf-8"><style>
body{{font:15px/1.5 system-ui,sans-serif;max-width:990px;margin:0 auto;padding:12px 20px;{theme}}}
.jp-InputPrompt,.jp-OutputPrompt,.anchor-link{{display:none}}
pre{{font:12px/1.45 ui-monospace,monospace;overflow-x:auto;white-space:pre-wrap}}
.jp-InputArea pre{{padding:6px 10px;border-left:3px solid #8886;margin:6px 0}}
</style></head><body>{body}</body></html>"""
_THEMES: Final = {"light": "background:#fff;color:#1b1b1b", "dark": "background:#16181b;color:#e8eaed"}


def execute(path: Path = NOTEBOOK) -> Any:
    """A notebook with the outputs of all its cells; an error in a cell is raised."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=HANGS, resources={"metadata": {"path": str(path.parent)}}).execute()
    return notebook


def digest(notebook: Any) -> str:
    """Of what the notebook does and shows, so that a picture of another one is told."""
    shown = [
        (
            cell.source,
            [output.get("text") or output.get("data", {}).get("text/html") for output in cell.get("outputs", ())],
        )
        for cell in notebook.cells
    ]
    return hashlib.sha256(repr(shown).encode()).hexdigest()


def page(notebook: Any, theme: str = "light") -> str:
    """The executed notebook as a page of its own, without scripts and without the cell that forges the disk."""
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    config = Config({"TagRemovePreprocessor": {"remove_cell_tags": ["forge"]}})
    exporter = HTMLExporter(template_name="basic", config=config)  # type: ignore[no-untyped-call]
    body, _ = exporter.from_notebook_node(notebook)
    return _PAGE.format(body=body, theme=_THEMES[theme])


def photograph(html: str, folder: Path, *, dark: bool = False, size: tuple[int, int] = _SIZE) -> bytes:
    """A picture (PNG) of a page in headless Chromium."""
    source, shot = folder / "page.html", folder / "shot.png"
    source.write_text(html, encoding="utf-8")
    command = [
        *(require_tool("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={size[0]},{size[1]}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        f"--screenshot={shot}",
        source.as_uri(),
    ]
    subprocess.run(command, capture_output=True, check=True, timeout=HANGS)
    return shot.read_bytes()


def smaller(picture: bytes, notebook_digest: str) -> bytes:
    """The picture with few colours and what it shows noted in it."""
    from PIL import Image as Picture
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("notebook", notebook_digest)
    out = io.BytesIO()
    with Picture.open(io.BytesIO(picture)) as opened:
        opened.convert("RGB").quantize(_COLORS, Picture.Quantize.MAXCOVERAGE, dither=Picture.Dither.NONE).save(
            out, "PNG", optimize=True, pnginfo=info
        )
    return out.getvalue()


if __name__ == "__main__":
    import tempfile

    executed = execute()
    with tempfile.TemporaryDirectory() as work:
        PICTURE.write_bytes(smaller(photograph(page(executed), Path(work)), digest(executed)))
