"""Settings of the site: ``make docs`` builds it, with warnings as errors; docs/adr/0019-docs.md says why so."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Final

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import inspect
from sphinx.util.nodes import make_refnode

import vmvisor_image

DOCS: Final = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS / "_ext"))

project = "vmvisor-image"
author = "The vmvisor_image authors"
project_copyright = author
version = release = vmvisor_image.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "argparse_reference",
]
exclude_patterns = ["_ext", "_static", "**/.ipynb_checkpoints"]

# Markdown: the pages are read on GitHub, too, so only what GitHub shows as well.
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

# The notebooks are executed anew at each build; an error in a cell fails it.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

# The reference. A name in `backticks` is a link where it is one of ours, else code.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_type_aliases = {"SourceLike": "SourceLike", "Tree": "Tree", "Content": "Content"}
autodoc_default_options = {"members": True}
autodoc_class_signature = "mixed"
autoclass_content = "both"  # the arguments are told where they are taken
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"vmvisor-image {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "a11y-high-contrast-light"  # of accessible-pygments, which Furo brings along
pygments_dark_style = "a11y-high-contrast-dark"

TAKEN_IN: Final = {
    "supported.md": "SUPPORTED.md",
    "changelog.md": "CHANGELOG.md",
    "notebooks/fleet.ipynb": "examples/fleet.ipynb",
    "notebooks/guests.ipynb": "examples/guests.ipynb",
    "notebooks/host.ipynb": "examples/host.ipynb",
}
"""Pages that are files outside docs/, by path: docs/ has a page that links there, the site has the file itself."""

NO_COLON: Final = "\ue000"
"""Stands for a colon while napoleon reads a docstring; of no use to anybody else."""


def _take_in(app: Sphinx, page: str, source: list[str]) -> None:
    """Make a page of docs/ one of the site: files taken in, links to them turned, lists of pages filled up."""
    text = source[0]
    for name, file in TAKEN_IN.items():
        if page == name.rpartition(".")[0]:
            path = DOCS.parent / file
            app.env.note_dependency(str(path))
            text = path.read_text(encoding="utf-8").replace("](docs/", "](")
    for name, file in TAKEN_IN.items():
        text = re.sub(rf"\]\((?:\.\./)*{re.escape(file)}", f"]({'../' * page.count('/')}{name}", text)
    text = re.sub(r"\[([^\]]*)\]\((?:\.\./)+examples/[^)]*\)", r"\1", text)  # the site has the docs only
    if page == "adr/README":
        text += "\n```{toctree}\n:hidden:\n:glob:\n\n[0-9]*\n```\n"
    if page == "index":
        text = text.replace("<!-- other pages -->", "\n".join(_unlisted(app, text)))
    source[0] = text


def _unlisted(app: Sphinx, index: str) -> list[str]:
    """Pages of docs/ itself that no list names: a new page is on the site before anybody finds the right place."""
    listed = set(re.findall(r"[\w/-]+", index))
    return sorted(page for page in app.env.found_docs if "/" not in page and page not in listed and page != "index")


def _draw_inline(app: Sphinx, doctree: nodes.document) -> None:
    """Put our pictures (SVG) into the page itself, where they take the colours of its theme."""
    if app.builder.format != "html":
        return
    for image in list(doctree.findall(nodes.image)):
        path = DOCS / image["uri"]
        if path.parent.name == "pictures" and path.suffix == ".svg":
            app.env.note_dependency(str(path), docname=app.env.current_document.docname)
            svg = path.read_text(encoding="utf-8")
            raw = nodes.raw("", f'<div class="picture">{svg}</div>', format="html")
            paragraph = image.parent
            if isinstance(paragraph, nodes.paragraph) and len(paragraph.children) == 1:
                paragraph.replace_self(raw)
            else:
                image.replace_self(raw)


def _signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Mend three signatures.

    Where a record came from (`source_offset`, `raw`) is never given when one is made. The class of fsspec's classes
    takes any arguments, and hands them on; a protocol is not made. An alias (`autodoc_type_aliases`) within another
    type is shown by its repr.
    """
    if signature and "source_offset" in signature:
        signature = re.sub(r"(, )?\*, source_offset: .*?, raw: bytes = b''", "", signature)
    if what == "class" and signature == "(*args, **kwargs)":
        given = inspect.signature(obj.__init__, bound_method=True, type_aliases=app.config.autodoc_type_aliases)
        shown = inspect.stringify_signature(given, unqualified_typehints=True, show_return_annotation=False)
        signature = "" if getattr(obj, "_is_protocol", False) else shown
    bare = [text and re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text) for text in (signature, returns)]
    return bare[0], bare[1]


def _hide_colon(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep napoleon from taking what stands before a colon, in the first line about an attribute, for its type."""
    if what in ("attribute", "data", "property") and lines:
        lines[0] = lines[0].replace(": ", f"{NO_COLON} ")


def _show_colon(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Put back, behind napoleon, what `_hide_colon` took out."""
    lines[:] = [line.replace(NO_COLON, ":") for line in lines]


def _find(app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, shown: nodes.Element) -> nodes.Node | None:
    """Find what a docstring names by its bare name, or by the module that it is defined in."""
    target: str = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not re.fullmatch(r"[\w.]+", target):
        return None
    known = env.domains.python_domain.objects
    parts = target.split(".")
    for start in range(len(parts)):
        name = f"vmvisor_image.{'.'.join(parts[start:])}"
        if name in known:
            entry = known[name]
            return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, [shown], name)
    return None


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _take_in)
    app.connect("doctree-read", _draw_inline, priority=400)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-process-docstring", _hide_colon, priority=400)
    app.connect("autodoc-process-docstring", _show_colon, priority=600)
    app.connect("missing-reference", _find)
