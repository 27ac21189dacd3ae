"""The notes of a release, from CHANGELOG.md; says what is amiss where the tag does not fit what is released.

    python tools/release_notes.py v0.1.0

It is run by whatever Python there is, before anything is installed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]


def version(repository: Path) -> str:
    """The library's version, from the one place that has it.

    Raises:
        ValueError: It is not there.
    """
    text = (repository / "src/vmvisor_image/__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise ValueError("__init__.py has no __version__")
    return found[1]


def notes(repository: Path, tag: str) -> str:
    """What CHANGELOG.md says of the release that a tag names.

    Raises:
        ValueError: It is not ready to be released as that.
    """
    released = version(repository)
    if tag != f"v{released}":
        raise ValueError(f"the tag is {tag}, but the version is {released}")
    cited = re.findall(r"^version: (.+)$", (repository / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    if cited != [released]:
        raise ValueError(f"CITATION.cff has version {', '.join(cited)}, not {released}")
    left = sorted(path.name for path in (repository / "changelog.d").glob("*.md") if path.name != "README.md")
    if left:
        raise ValueError(f"changelog.d still has {', '.join(left)}: towncrier build --version {released}")
    log = (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.split(r"^## \[(.+?)\].*\n", log, flags=re.MULTILINE)
    found = dict(zip(sections[1::2], sections[2::2], strict=True))
    if "Unreleased" in found:
        raise ValueError("CHANGELOG.md still has a section [Unreleased]: RELEASING.md, before the first release")
    if not found.get(released, "").strip():
        raise ValueError(f"CHANGELOG.md says nothing of {released}")
    return found[released].strip() + "\n"


if __name__ == "__main__":
    try:
        print(notes(REPOSITORY, *sys.argv[1:]), end="")
    except ValueError as error:
        sys.exit(f"not released: {error}")
