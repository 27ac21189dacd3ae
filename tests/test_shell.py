"""What the shell gets: completion that really completes, and a man page that is what the parser says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import REPOSITORY, require_tool, run
from vmvisor_image.faces.cli import main

PAGE = REPOSITORY / "docs/man/vmvisor-image.1"
BASH = """
source "$1"
COMP_WORDS=("${@:2}") COMP_CWORD=$(($# - 2))
"$(complete -p vmvisor-image | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def script(request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The completion script of the shell that the test names."""
    assert main(["completion", request.param]) == 0
    path = tmp_path / "completion"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.mark.parametrize("script", ["bash"], indirect=True)
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("i",), {"info", "index"}),
        (("sca",), {"scan"}),
        (("tr",), {"tree"}),
        (("diff", "SUPP"), {"SUPPORTED.md"}),
        (("diff", "README.md", "SUPP"), {"SUPPORTED.md"}),
        (("sha256", "--j"), {"--json"}),
        (("ls", "--rec"), {"--recursive"}),
        (("scan", "--sch"), {"--scheduler"}),
        (("pxe", "--ker"), {"--kernel-option"}),
        (("completion", ""), {"bash", "zsh", "fish"}),
        (("info", "SUPP"), {"SUPPORTED.md"}),
        (("info", "--cache", "benchm"), {"benchmarks/"}),
    ],
)
def test_bash_completes(script: Path, words: tuple[str, ...], found: set[str]) -> None:
    command = ["bash", "-c", BASH, "bash", str(script), "vmvisor-image", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stderr == ""
    # A folder is completed with or without its slash, as bash is set.
    assert {word.strip().rstrip("/") for word in done.stdout.splitlines()} == {word.rstrip("/") for word in found}


@pytest.mark.parametrize("script", ["fish"], indirect=True)
def test_fish_completes(script: Path) -> None:
    shown = run("fish", "-c", f"source {script}; complete -C 'vmvisor-image sca'")
    assert [line.split("\t")[0] for line in shown.splitlines()] == ["scan"]


@pytest.mark.parametrize("script", ["zsh"], indirect=True)
def test_zsh_takes_its_script(script: Path) -> None:
    run("zsh", "-n", script)
    shown = run("zsh", "-fc", f"autoload -Uz compinit; compinit -D -u; source {script}; print $_comps[vmvisor-image]")
    assert "_shtab_vmvisor_image" in shown + script.read_text()


def test_without_shtab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "pip install 'vmvisor-image[cli]'" in capsys.readouterr().err


class TestManPage:
    def test_is_what_the_parser_says(self) -> None:
        made = subprocess.check_output([sys.executable, REPOSITORY / "tools/man_page.py"], text=True)
        assert PAGE.read_text() == made, "make man writes it anew"

    def test_has_no_faults(self) -> None:
        done = subprocess.run(
            [require_tool("groff"), "-man", "-ww", "-Tutf8", PAGE], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""

    def test_shows_every_command_and_option(self) -> None:
        shown = run("man", "-l", PAGE)
        for text in ("vmvisor-image scan [options] SRC ...", "--kernel-option OPTION", "EXIT STATUS"):
            assert text in shown
