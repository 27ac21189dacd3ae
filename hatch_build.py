"""Building the Rust core into the wheel, where there is a cargo that can; without it the wheel is pure Python.

`VMVISOR_BUILD_CORE=no` leaves the core out, `VMVISOR_BUILD_CORE=yes` makes it an error when it can't be built.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_VARIABLE = "VMVISOR_BUILD_CORE"
_MODULE = "vmvisor_image/bzip2/_core"
_TAG = "cp311-abi3"
"""Every CPython from 3.11 on, but free-threaded ones: they have no stable ABI."""
_LIBRARIES = {
    "darwin": ("libvmvisor_image_core.dylib", ".abi3.so"),
    "win32": ("vmvisor_image_core.dll", ".pyd"),
}
"""What cargo calls the library, and what Python calls the extension, by `sys.platform`."""
_ELSE = ("libvmvisor_image_core.so", ".abi3.so")


class CoreMissing(Exception):
    """Why the core is left out."""


class CoreBuildHook(BuildHookInterface[Any]):
    """Builds the core with cargo and puts it into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See `BuildHookInterface.initialize`."""
        if version == "editable":
            return
        try:
            library, suffix = self._build()
        except CoreMissing as reason:
            if os.environ.get(_VARIABLE) == "yes":
                raise RuntimeError(f"the Rust core can't be built: {reason}") from None
            self.app.display_info(f"vmvisor-image: built without the Rust core ({reason}); libbz2 decodes bzip2")
            return
        build_data["force_include"][str(library)] = f"{_MODULE}{suffix}"
        build_data["pure_python"] = False
        build_data["tag"] = f"{_TAG}-{_platform_tag()}"
        self.app.display_info("vmvisor-image: built with the Rust core")

    def _build(self) -> tuple[Path, str]:
        """The extension's file, and its suffix.

        Raises:
            CoreMissing: It can't be built.
        """
        if os.environ.get(_VARIABLE) == "no":
            raise CoreMissing(f"{_VARIABLE}=no")
        if platform.python_implementation() != "CPython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
            raise CoreMissing("this Python has no stable ABI")
        cargo = shutil.which("cargo")
        if cargo is None:
            raise CoreMissing("cargo is not on PATH")
        core = Path(self.root, "core")
        target = Path(os.environ.get("CARGO_TARGET_DIR", core / "target"))
        # Files out of an sdist are all of one old date, by which cargo would take an older build for a fresh one.
        clean = ["clean", "--release", "--locked", "--package", "vmvisor-image-core"]
        for command in (clean, ["build", "--release", "--locked", "--features", "python"]):
            # In its folder, as cargo looks for its settings from there on.
            done = subprocess.run(
                [cargo, *command, "--target-dir", str(target)],
                cwd=core,
                env={**os.environ, "PYO3_PYTHON": sys.executable},
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
            if done.returncode:
                said = re.findall(r"^error.*", done.stderr, re.MULTILINE)
                raise CoreMissing(f"cargo: {said[0] if said else done.stderr.strip()[-200:]}")
        library, suffix = _LIBRARIES.get(sys.platform, _ELSE)
        found = target / "release" / library
        if "CARGO_BUILD_TARGET" in os.environ:
            found = target / os.environ["CARGO_BUILD_TARGET"] / "release" / library
        return found, suffix


def _platform_tag() -> str:
    tag = sysconfig.get_platform()
    if tag.endswith("universal2"):  # that is Python; cargo builds for one architecture
        tag = f"macosx-11.0-{platform.machine()}"
    return re.sub("[-.]", "_", tag)
