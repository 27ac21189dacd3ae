"""Choice of the decoder of blocks: the Rust core where it is there, otherwise libbz2, unless the environment says."""

from __future__ import annotations

import importlib.util
import os
from typing import Final

from vmvisor_image.bzip2.engines import Engine, EngineName
from vmvisor_image.bzip2.libbz2 import Libbz2Engine
from vmvisor_image.errors import DependencyMissing, InvalidArgument

VARIABLE: Final = "VMVISOR_BZIP2_ENGINE"
"""The environment variable that forces an engine, by its name."""


def make_engine() -> Engine:
    """An engine with memory of its own: the Rust core where it is there, or what the environment says.

    Raises:
        DependencyMissing: The environment says "rust", and the core is not there.
        InvalidArgument: The environment names no engine.
    """
    forced = os.environ.get(VARIABLE, "")
    if forced not in ("", "rust", "libbz2"):
        raise InvalidArgument(f"{VARIABLE} must be rust or libbz2, not {forced!r}")
    if forced != "libbz2":
        try:
            from vmvisor_image.bzip2.rust import RustEngine
        except ImportError as error:
            if forced:
                is_there = importlib.util.find_spec("vmvisor_image.bzip2._core") is not None
                reason = f"can't be loaded ({error})" if is_there else "is not there: this was built without it"
                raise DependencyMissing(f"{VARIABLE}=rust: the Rust core {reason}") from error
        else:
            return RustEngine()
    return Libbz2Engine()


def engine() -> EngineName:
    """Name of the engine that decodes what is opened now: "rust" or "libbz2".

    The environment variable `VMVISOR_BZIP2_ENGINE` forces either.

    Raises:
        DependencyMissing: The environment says "rust", and the core is not there.
        InvalidArgument: The environment names no engine.
    """
    return make_engine().name
