"""Runs targets with atheris; imports nothing of the library itself, so that all of it but the forge is instrumented."""

from __future__ import annotations

import importlib
import pkgutil
import tempfile
from pathlib import Path
from typing import Protocol, cast


class Target(Protocol):
    """What the module of a target has."""

    def seeds(self) -> list[bytes]:
        """Valid inputs, from the forge."""
        ...

    def one_input(self, data: bytes) -> None:
        """Try one input; anything that is raised is a finding."""
        ...


def names() -> list[str]:
    """Every target."""
    folder = Path(__file__).parent / "targets"
    return sorted(module.name for module in pkgutil.iter_modules([str(folder)]))


def load(name: str) -> Target:
    """The module of a target."""
    return cast("Target", importlib.import_module(f"fuzz.targets.{name}"))


def main(name: str, arguments: list[str]) -> None:
    """Fuzz one target; the arguments are libFuzzer's.

    Seeds and dictionary are written to a temporary folder at each start; the seeds are not used where an argument is a
    file, which libFuzzer tries, or makes smaller, instead of fuzzing.
    """
    import atheris

    with atheris.instrument_imports(include=["vmvisor_image"], exclude=["vmvisor_image.testing"]):
        target = load(name)
        from fuzz.dictionary import dictionary
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "seeds")
        corpus.mkdir()
        for number, seed in enumerate(target.seeds()):
            (corpus / f"{number:03}").write_bytes(seed)
        words = Path(folder, "dictionary")
        words.write_text(dictionary(), encoding="ascii")
        atheris.Setup([f"fuzz_{name}", f"-dict={words}", *with_seeds(arguments, corpus)], target.one_input)
        atheris.Fuzz()


def with_seeds(arguments: list[str], seeds: Path) -> list[str]:
    """libFuzzer's arguments, and the folder of seeds where it takes folders."""
    return arguments if any(Path(argument).is_file() for argument in arguments) else [*arguments, str(seeds)]
