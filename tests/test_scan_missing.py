"""The exit status of `scan` where sources are missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmvisor_image.faces.cli.main import main


@pytest.mark.parametrize("flags", [[], ["--json"], ["--out", "rows.jsonl"]])
class TestMissing:
    def test_all_of_them(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str]) -> None:
        monkeypatch.chdir(tmp_path)
        assert main(["scan", *flags, "a.img", "b.img"]) == 2 == main(["ls", "a.img"])

    def test_one_of_them(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str]) -> None:
        monkeypatch.chdir(tmp_path)
        Path("there.img").write_bytes(bytes(512))
        assert main(["scan", *flags, "a.img", "there.img"]) == 1
