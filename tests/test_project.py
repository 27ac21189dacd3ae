"""What strangers need to join in: workflows, forms, guides, changelog; checked as far as can be offline."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import vmvisor_image
from tests.support import REPOSITORY, require_python_tool

GITHUB = REPOSITORY / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
FRAGMENTS = sorted(path for path in (REPOSITORY / "changelog.d").iterdir() if path.name != "README.md")
GUIDES = ("CONTRIBUTING.md", "RELEASING.md")
SCHEMAS = {
    ".github/workflows/*.yml": "github-workflows",
    ".github/dependabot.yml": "dependabot",
    ".github/ISSUE_TEMPLATE/config.yml": "github-issue-config",
    ".github/ISSUE_TEMPLATE/[!c]*.yml": "github-issue-forms",
    "CITATION.cff": "citation-file-format",
}
"""Of check-jsonschema, which has them with it, for each file."""

by_name = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def read(path: str) -> str:
    return (REPOSITORY / path).read_text(encoding="utf-8")


def python_tool(name: str, *arguments: str | Path, folder: Path = REPOSITORY) -> tuple[int, str]:
    """Exit status of a tool, and all that it prints."""
    done = subprocess.run(
        [require_python_tool(name), *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout


def zizmor(folder: Path) -> tuple[int, str]:
    options = ("--offline", "--persona=pedantic", "--strict-collection", "--no-progress", "--color=never")
    return python_tool("zizmor", *options, ".", folder=folder)


class TestGitHub:
    @pytest.mark.parametrize("pattern", SCHEMAS)
    def test_files_have_the_shape_that_is_asked_for(self, pattern: str) -> None:
        paths = sorted(REPOSITORY.glob(pattern))
        assert paths
        status, text = python_tool("check-jsonschema", "--builtin-schema", f"vendor.{SCHEMAS[pattern]}", *paths)
        assert status == 0, text

    def test_every_job_ends(self) -> None:
        schema = "custom.github-workflows-require-timeout"
        status, text = python_tool("check-jsonschema", "--builtin-schema", schema, *WORKFLOWS)
        assert status == 0, text

    def test_workflows_are_secure(self) -> None:
        status, text = zizmor(REPOSITORY)
        assert (status, "No findings" in text) == (0, True), text

    def test_one_that_is_not_would_be_found(self, tmp_path: Path) -> None:
        shutil.copytree(GITHUB, tmp_path / ".github")
        path = tmp_path / ".github/workflows/tests.yml"
        path.write_text(
            re.sub(r"(actions/checkout)@\w+ # ", r"\1@", path.read_text(encoding="utf-8")), encoding="utf-8"
        )
        status, text = zizmor(tmp_path)
        assert status != 0
        assert "unpinned-uses" in text

    def test_what_they_use_is_pinned_alike_everywhere(self) -> None:
        pins: dict[str, set[str]] = {}
        for path in WORKFLOWS:
            for name, pin in re.findall(
                r"^ +(?:- )?uses: ([^@\n]+)@?(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE
            ):
                if not name.startswith("$/"):
                    pins.setdefault(name, set()).add(pin)
            for image in re.findall(r"^ +(?:container|image): (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
                name, _, pin = image.partition("@")
                pins.setdefault(name, set()).add(pin)
        assert len(pins) > 4
        for name, found in pins.items():
            [pin] = found
            assert re.fullmatch(r"[0-9a-f]{40} # v\d+\.\d+\.\d+|sha256:[0-9a-f]{64}", pin), name

    def test_the_tests_run_on_every_python_that_is_promised(self) -> None:
        prefix = "Programming Language :: Python :: 3."
        promised = [name.rpartition(" ")[2] for name in PROJECT["project"]["classifiers"] if name.startswith(prefix)]
        matrices = re.findall(r"^ +python: \[(.*)\]$", read(".github/workflows/tests.yml"), re.MULTILINE)
        assert len(matrices) == 2
        assert set(matrices) == {", ".join(f'"{version}"' for version in promised)}

    def test_owners_own_what_there_is(self) -> None:
        lines = [line.split() for line in read(".github/CODEOWNERS").splitlines() if not line.startswith("#")]
        for pattern, *owners in lines:
            assert owners
            assert all(re.fullmatch(r"@[\w-]+(/[\w-]+)?", owner) for owner in owners)
            assert pattern == "*" or (REPOSITORY / pattern.strip("/")).exists(), pattern


class TestPreCommit:
    CONFIG = read(".pre-commit-config.yaml")

    def test_it_is_one(self) -> None:
        status, text = python_tool("pre-commit", "validate-config")
        assert status == 0, text

    def test_every_hook_runs_what_the_lock_pins(self) -> None:
        """With no repository but this one, and no environment but uv's, there is no second place for a version."""
        assert re.findall(r"- repo: (.*)", self.CONFIG) == ["local"]
        entries = re.findall(r"entry: (.*)", self.CONFIG)
        assert len(entries) == self.CONFIG.count("- id: ") == self.CONFIG.count("language: system")
        tools = [re.sub("^uv run --frozen (--all-extras )?--group dev ", "", entry) for entry in entries]
        assert all(tool != entry for tool, entry in zip(tools, entries, strict=True))
        assert {"ruff check", "ruff format"} <= {" ".join(tool.split()[:2]) for tool in tools}
        assert {tool.split()[0] for tool in tools} == {"ruff", "mypy", "check-jsonschema", "zizmor"}


def test_editors_are_told_the_length_of_lines() -> None:
    [length] = re.findall(r"^max_line_length = (\d+)$", read(".editorconfig"), re.MULTILINE)
    assert int(length) == PROJECT["tool"]["ruff"]["line-length"]


CITED: dict[str, str] = dict(re.findall(r"^([\w-]+): (.+)$", read("CITATION.cff"), re.MULTILINE))


class TestCitation:
    def test_it_is_of_this_project(self) -> None:
        assert CITED["title"] == PROJECT["project"]["name"]
        assert CITED["license"] == PROJECT["project"]["license"]
        assert f"- name: {PROJECT['project']['authors'][0]['name']}\n" in read("CITATION.cff")

    def test_it_is_of_this_version(self) -> None:
        assert CITED["version"] == vmvisor_image.__version__

    def test_it_leads_to_the_source(self) -> None:
        assert CITED["repository-code"] == PROJECT["project"]["urls"]["Source"]


def texts_with_addresses() -> Iterator[tuple[str, str]]:
    """Files that may name the repository's address, with their text."""
    for pattern in ("*.md", "*.toml", "*.cff", ".github/**/*", "docs/**/*.md", "docs/**/*.rst"):
        for path in sorted(REPOSITORY.glob(pattern)):
            if path.is_file():
                yield path.relative_to(REPOSITORY).as_posix(), path.read_text(encoding="utf-8")


class TestAddress:
    OWNER = PROJECT["project"]["urls"]["Source"].removeprefix("https://github.com/")

    def test_all_urls_of_the_project_are_below_one(self) -> None:
        assert re.fullmatch(r"[\w-]+/vmvisor-image", self.OWNER)
        for url in PROJECT["project"]["urls"].values():
            assert url == f"https://github.com/{self.OWNER}" or url.startswith(f"https://github.com/{self.OWNER}/")

    def test_urls_of_files_lead_to_files(self) -> None:
        for name, text in texts_with_addresses():
            for path in re.findall(rf"{self.OWNER}/blob/main/([\w./-]*\w)", text):
                assert (REPOSITORY / path).is_file(), name

    def test_nothing_has_another(self) -> None:
        for name, text in texts_with_addresses():
            assert set(re.findall(r"(?:github\.com/|--repo |repository == ')([\w-]+/vmvisor-image)\b", text)) <= {
                self.OWNER
            }, name

    def test_the_guide_names_every_place_that_has_it(self) -> None:
        places = {name for name, text in texts_with_addresses() if self.OWNER in text} - {"RELEASING.md"}
        assert len(places) > 4
        assert [name for name in places if f"`{name}`" not in read("RELEASING.md")] == []


def fenced(text: str) -> list[str]:
    """Commands of a page's console examples."""
    blocks = re.findall(r"^ *```console\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def code_spans(text: str) -> list[str]:
    outside = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`]+)`", outside)


def make_verbs(command: str) -> list[str]:
    """Verbs of ``make`` in one line."""
    found = re.findall(r"\bmake((?: [a-z][a-z-]*\b(?!=))+)", command.partition("#")[0])
    return [verb for verbs in found for verb in verbs.split()]


class TestGuides:
    VERBS = frozenset(re.findall(r"^([a-z0-9-]+):.*## ", read("Makefile"), re.MULTILINE))

    @pytest.mark.parametrize("page", GUIDES)
    def test_verbs_are_there(self, page: str) -> None:
        named = {verb for line in (*fenced(read(page)), *code_spans(read(page))) for verb in make_verbs(line)}
        assert len(named) > 2
        assert named - self.VERBS == set()

    @by_name
    def test_verbs_of_workflows_are_there(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        commands = re.findall(r"run: (make .*)", text)
        verbs = {verb for command in commands for verb in make_verbs(command)}
        for given in re.findall(r"^ +verb: \[(.*)\]$", text, re.MULTILINE):
            verbs |= set(given.split(", "))
        assert verbs - self.VERBS == set()

    @pytest.mark.parametrize("page", GUIDES)
    def test_files_are_there(self, page: str) -> None:
        """A name in capitals stands for one that the reader chooses."""
        text = read(page)
        paths = {
            span for span in code_spans(text) if re.fullmatch(r"[\w.][\w./-]*(/|\.(md|py|toml|cff|ya?ml|json))", span)
        }
        paths |= {target.partition("#")[0] for target in re.findall(r"\]\(([^):]+)\)", text)}
        paths |= {
            word for line in fenced(text) for word in line.split() if word.startswith(("src/", "tests/", "tools/"))
        }
        assert len(paths) > 5
        for path in paths:
            if "NAME" in path:
                assert (REPOSITORY / path).parent.is_dir(), path
            else:
                assert (REPOSITORY / path).exists() or [*GITHUB.rglob(path)], path


class TestChangelog:
    SORTS = tuple(sort["directory"] for sort in PROJECT["tool"]["towncrier"]["type"])

    def test_sorts_are_those_of_the_guide(self) -> None:
        assert tuple(re.findall(r"^\| `(\w+)` \|", read("changelog.d/README.md"), re.MULTILINE)) == self.SORTS

    def test_entries_have_a_name_that_says_where_they_go(self) -> None:
        for path in FRAGMENTS:
            assert re.fullmatch(rf"(\d+|\+[a-z0-9-]+)\.({'|'.join(self.SORTS)})\.md", path.name), path.name

    def test_entries_are_sentences(self) -> None:
        for path in FRAGMENTS:
            text = path.read_text(encoding="utf-8")
            assert re.match(r"[^\s#*-]", text), f"{path.name} begins with its first word"
            assert re.search(r"[.…:]\n$", text), f"{path.name} ends with a full stop and one line feed"
            assert max(map(len, text.splitlines())) <= PROJECT["tool"]["ruff"]["line-length"] + 8, path.name

    @pytest.fixture
    def released(self, tmp_path: Path) -> Path:
        """A copy of what a release reads, with a release of version 9.8.7 in it."""
        for name in ("pyproject.toml", "CHANGELOG.md"):
            shutil.copy(REPOSITORY / name, tmp_path)
        shutil.copytree(REPOSITORY / "changelog.d", tmp_path / "changelog.d")
        (tmp_path / "changelog.d/+one.fixed.md").write_text("A mistake.\n")
        (tmp_path / "changelog.d/12.fixed.md").write_text("Another.\n")
        (tmp_path / "src/vmvisor_image").mkdir(parents=True)
        (tmp_path / "src/vmvisor_image/__init__.py").write_text('"""Docs."""\n\n__version__ = "9.8.7"\n')
        (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 9.8.7\n")
        build = ("build", "--version", "9.8.7", "--date", "2030-01-02", "--yes")
        status, text = python_tool("towncrier", *build, folder=tmp_path)
        assert status == 0, text
        return tmp_path

    def test_a_release_gathers_them(self, released: Path) -> None:
        assert [path.name for path in (released / "changelog.d").iterdir()] == ["README.md"]
        before, after = read("CHANGELOG.md"), (released / "CHANGELOG.md").read_text(encoding="utf-8")
        head, _, rest = before.partition("\n## [")
        assert after.startswith(f"{head}\n## [9.8.7] - 2030-01-02\n\n### ")
        assert after.endswith(f"\n## [{rest}")
        url = PROJECT["project"]["urls"]["Issues"]
        fixed = after.partition("\n### Fixed\n\n")[2].partition("\n\n")[0].splitlines()
        assert {"- A mistake.", f"- Another. ([#12]({url}/12))"} <= set(fixed)
        for path in FRAGMENTS:
            assert path.read_text(encoding="utf-8").splitlines()[0] in after

    def test_notes_are_its_section(self, released: Path) -> None:
        self._without_unreleased(released)
        text = notes()(released, "v9.8.7")
        assert text.startswith("### ")
        assert "- A mistake.\n" in text
        assert "## [" not in text

    @pytest.mark.parametrize(
        ("path", "content", "complaint"),
        [
            ("src/vmvisor_image/__init__.py", '__version__ = "9.8.6"\n', "the tag is v9.8.7, but the version is 9.8.6"),
            ("CITATION.cff", "version: 9.8.6\n", "CITATION.cff has version 9.8.6"),
            ("changelog.d/+late.added.md", "Late.\n", r"still has \+late.added.md"),
            ("CHANGELOG.md", "# Changelog\n\n## [9.8.6] - 2029-01-01\n\nx\n", "says nothing of 9.8.7"),
            ("CHANGELOG.md", "## [Unreleased]\n\nx\n\n## [9.8.7] - 2029-01-01\n\nx\n", "still has a section"),
        ],
    )
    def test_what_is_not_ready_is_not_released(self, released: Path, path: str, content: str, complaint: str) -> None:
        self._without_unreleased(released)
        (released / path).write_text(content)
        with pytest.raises(ValueError, match=complaint):
            notes()(released, "v9.8.7")

    @staticmethod
    def _without_unreleased(released: Path) -> None:
        log = released / "CHANGELOG.md"
        log.write_text(log.read_text(encoding="utf-8").replace("## [Unreleased]", ""), encoding="utf-8")


def notes() -> Callable[[Path, str], str]:
    """What tools/release_notes.py makes the notes with."""
    return cast("Callable[[Path, str], str]", runpy.run_path(str(REPOSITORY / "tools/release_notes.py"))["notes"])


def test_ci_installs_every_tool_that_tests_ask_for() -> None:
    """Where CI has no tool, the test that needs it fails there, and only there."""
    installed = set(re.findall(r"\[([^\]\s]+)\]=", (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")))
    essential = {"bash", "blkid", "chmod", "dpkg", "env", "gzip", "sh", "sha256sum", "split", "tar"}  # of every Debian
    asked = re.compile(r"\b(?:require_tool|run|run_to_file)\(\s*\"([\w.-]+)\"")
    for path in (REPOSITORY / "tests").glob("*.py"):
        for name in asked.findall(path.read_text(encoding="utf-8")):
            assert name in installed | essential or name in ("uv", "tftp_root.py", "triage.py"), (path.name, name)
