"""The docs: their examples run, their pictures are as drawn, the reference is whole, and the site fits a telephone."""

from __future__ import annotations

import functools
import html
import json
import os
import re
import runpy
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import vmvisor_image
from tests import doc_examples
from tests.support import HANGS, REPOSITORY, build_once, require_tool, unavailable

SITE = REPOSITORY / "build" / "docs"
PICTURES = runpy.run_path(str(REPOSITORY / "tools/pictures.py"))["PICTURES"]
ELSEWHERE = {
    "docs/fsspec.md": "tests/test_fsspec.py runs it, with a server",
    "docs/fleet.md": "tests/test_fleet.py does the same, with a small cluster of its own",
    "docs/salvage.md": "tests/test_damaged_start.py runs its Python, and damages images in the same ways",
    "docs/verify.md": "tests/test_verification.py verifies images damaged in the same ways",
}


@pytest.fixture(scope="module")
def made(for_all_workers: Path) -> Path:
    """The folder of forged images."""
    folder = for_all_workers / "images"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize("page", [page for page in doc_examples.pages() if doc_examples.examples(page)])
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # an example need not close what it opens
def test_examples(
    page: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if page in ELSEWHERE:
        pytest.skip(ELSEWHERE[page])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    doc_examples.provide(page, made)
    runner = doc_examples.Runner(page)
    request.addfinalizer(runner.close)
    for example in doc_examples.examples(page):
        if not example.not_run:
            assert example.language in doc_examples.LANGUAGES, f"{page}:{example.line}: say console, python or pycon"
            try:
                runner.run(example)
            except Exception as error:
                error.add_note(
                    f"in the example at {page}:{example.line}; <!-- not run: why --> before it if it can't be"
                )
                raise


def test_a_console_is_read_as_a_reader_does() -> None:
    text = "$ a b  # why\n$ c \\\n    d\nshown\nagain\n"
    assert doc_examples.commands(text) == [("a b", ""), ("c \\\n    d", "shown\nagain")]


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_as_drawn(name: str) -> None:
    picture = REPOSITORY / "docs/pictures" / name
    assert picture.read_text(encoding="utf-8") == PICTURES[name](), "python tools/pictures.py draws it anew"


def test_the_reference_has_every_public_name() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "docs/reference").glob("*.rst"))
    named = set(re.findall(r"^\.\. (?:auto)?\w+:: (\w+)$", text, re.MULTILINE))
    assert set(vmvisor_image.__all__) - named == set()


def test_the_reference_has_what_the_pages_import_or_name() -> None:
    """What is not in it may change in any release, it says."""
    pages = [*(REPOSITORY / "docs").glob("*.md"), *(REPOSITORY / "examples").rglob("*.py"), REPOSITORY / "README.md"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in pages)
    reference = "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "docs/reference").glob("*.rst"))
    known = set(re.findall(r"^\.\. (?:automodule|currentmodule):: ([\w.]+)$", reference, re.MULTILINE))
    imported = set(re.findall(r"^from (vmvisor_image[\w.]*) import", text, re.MULTILINE))
    named = {f"vmvisor_image.{name}" for name in re.findall(r"\b(fleet|fsspec|testing\.\w+)\b", text)}
    assert (imported | named) - known == set()


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    texts = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-") for text in texts}


def test_links_lead_to_files_and_headings() -> None:
    """Also those of pages that are not on the site."""
    folders = ("", "docs", "docs/adr", "examples/plugin")
    wrong = []
    for page in [path for folder in folders for path in (REPOSITORY / folder).glob("*.md")]:
        text = re.sub(r"^(`{3,}).*?^\1|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            if ":" in name:
                continue
            if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
                wrong.append(f"{page.relative_to(REPOSITORY)}: {link}")
    assert wrong == []


def test_extras_are_in_the_tutorial() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    table = (REPOSITORY / "docs/tutorial.md").read_text(encoding="utf-8").partition("## Extras")[2].partition("## ")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(project["optional-dependencies"])


def notebooks_in(folder: str) -> list[Path]:
    """The notebooks in a folder of the repository."""
    return sorted((REPOSITORY / folder).glob("*.ipynb"))


@pytest.fixture(scope="module")
def site() -> Path:
    if not (SITE / "index.html").is_file():
        unavailable("the site is not built: make docs")
    return SITE


def test_the_reference_reads_as_the_docstrings_do(site: Path) -> None:
    for page in (site / "reference").glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r">Type<|ForwardRef|\ue000", text), page  # what Sphinx makes of a colon, and of an alias
    text = re.sub(r"<[^>]+>", "", (site / "reference/fsspec.html").read_text(encoding="utf-8"))
    assert "target_options: Mapping[str, Any] | None = None" in text
    text = re.sub(r"<[^>]+>", "", (site / "reference/files.html").read_text(encoding="utf-8"))
    assert "property modified: datetime | None" in text


def test_notebooks_say_what_they_need_and_are_on_the_site(site: Path) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    notebooks = {path.stem: path for folder in ("docs/notebooks", "examples") for path in notebooks_in(folder)}
    assert set(notebooks) == {path.stem for path in (site / "notebooks").glob("*.html")}
    for name, path in notebooks.items():
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        needed = re.search(r"`pip install '?vmvisor-image(?:\[([\w,]+)\])?'?`", "".join(cells[0]["source"]))
        assert needed is not None, path
        assert set((needed[1] or "").split(",")) - {""} <= set(project["optional-dependencies"]), path
        page = (site / f"notebooks/{name}.html").read_text(encoding="utf-8")
        assert needed[0].strip("`") in html.unescape(re.sub(r"<[^>]+>", "", page)), path


def test_the_site_fetches_nothing(site: Path) -> None:
    for page in site.rglob("*.html"):
        for tag in re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", page.read_text(encoding="utf-8")):
            assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", tag), f"{page}: {tag}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


@contextmanager
def served(site: Path) -> Iterator[str]:
    """The address of a server of the site."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


MEASURE = """<!DOCTYPE html><meta charset="utf-8"><body><script>
const pages = PAGES, widths = WIDTHS, themes = THEMES;
// Contrast as WCAG 2 defines it.
const light = color => {
  const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
const one = (page, width) => new Promise(resolve => {
  const frame = document.createElement("iframe");
  frame.style = `width:${width}px;height:800px;border:0`;
  frame.onload = async () => {
    const inside = frame.contentDocument, root = inside.documentElement, view = frame.contentWindow;
    const found = [];
    for (const theme of themes) {
      inside.body.dataset.theme = theme;
      await new Promise(done => setTimeout(done, 20));
      const wide = [...inside.querySelectorAll("article *")].filter(e => e.getBoundingClientRect().right > width + 1)
        .filter(e => !e.closest("pre,.table-wrapper,.picture,.output,.sig,svg,.highlight"))
        .map(e => e.outerHTML.slice(0, 90));
      const faint = [];
      const walker = inside.createTreeWalker(inside.querySelector("article"), view.NodeFilter.SHOW_TEXT);
      while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || element.closest("svg,script,style,.headerlink,.copybtn")) continue;
        let behind = element;
        while (behind && /rgba\\(.*, 0\\)|transparent/.test(view.getComputedStyle(behind).backgroundColor))
          behind = behind.parentElement;
        const [ink, paper] = [view.getComputedStyle(element), view.getComputedStyle(behind || root)];
        const ratio = contrast(ink.color, paper.backgroundColor);
        if (ratio < 3.5) faint.push(`${ratio.toFixed(1)}: ${walker.currentNode.data.trim().slice(0, 40)}`);
      }
      found.push({page, width, theme, scrolls: root.scrollWidth - root.clientWidth, wide: wide.slice(0, 3),
        faint: faint.slice(0, 3)});
    }
    resolve(found);
    frame.remove();
  };
  frame.src = page;
  document.body.append(frame);
});
(async () => {
  const found = [];
  for (const width of widths) for (const page of pages) found.push(...await one(page, width));
  const out = document.createElement("pre");
  out.id = "found";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
})();
</script>"""


WIDTHS, THEMES = (390, 1400), ("light", "dark")


def measured(site: Path, folder: Path) -> list[dict[str, Any]]:
    """What Chromium finds in every page at every width and in every theme; started once for all of them."""
    names = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html") if "_static" not in path.parts)
    assert len(names) > 30
    harness = site / f"measure-{os.getpid()}.htm"  # not .html, for which tests beside this one look
    text = MEASURE.replace("PAGES", json.dumps(names)).replace("WIDTHS", json.dumps(WIDTHS))
    harness.write_text(text.replace("THEMES", json.dumps(THEMES)), encoding="utf-8")
    with served(site) as address:
        command = [
            *(require_tool("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"),
            *(f"--user-data-dir={folder / 'profile'}", "--window-size=1500,900", "--hide-scrollbars"),
            *("--virtual-time-budget=480000", "--dump-dom", f"{address}/{harness.name}"),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=HANGS)
        finally:
            harness.unlink()
    shown = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert shown is not None, done.stdout[-2000:]
    found: list[dict[str, Any]] = json.loads(html.unescape(shown[1]))
    for width in WIDTHS:
        for theme in THEMES:
            assert [page["page"] for page in found if (page["width"], page["theme"]) == (width, theme)] == names
    return found


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", THEMES)
def test_no_page_scrolls_sideways_and_all_can_be_read(
    site: Path, width: int, theme: str, for_all_workers: Path, tmp_path: Path
) -> None:
    def make(path: Path) -> None:
        path.write_text(json.dumps(measured(site, tmp_path)), encoding="utf-8")

    kept = build_once(for_all_workers / "measured.json", make)
    found = [
        page
        for page in json.loads(kept.read_text(encoding="utf-8"))
        if (page["width"], page["theme"]) == (width, theme)
    ]
    assert len(found) > 30
    assert [page for page in found if page["scrolls"] > 0] == []
    assert [page for page in found if page["faint"]] == []
