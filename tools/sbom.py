"""`make sbom`: what a release is made of, as CycloneDX, in dist/sbom.cdx.json; validated, and made twice to compare.

The Python packages are those of an environment; the crates are those that core/Cargo.lock names, as the wheels with the
Rust core are built from them (some only run while it is built).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

SBOM = Path("dist/sbom.cdx.json")
CRATES = Path("core/Cargo.lock")


def crates() -> list[dict[str, Any]]:
    """Component of each crate from a registry, with the checksum of its archive."""
    packages = tomllib.loads(CRATES.read_text(encoding="utf-8"))["package"]
    return [
        {
            "bom-ref": f"cargo:{package['name']}@{package['version']}",
            "hashes": [{"alg": "SHA-256", "content": package["checksum"]}],
            "name": package["name"],
            "purl": f"pkg:cargo/{package['name']}@{package['version']}",
            "type": "library",
            "version": package["version"],
        }
        for package in packages
        if "checksum" in package  # our own has none
    ]


def write(runtime: str, path: Path) -> bytes:
    """The SBOM of the crates, and of an environment that holds what a release needs to run."""
    program = Path(sys.executable).with_name("cyclonedx-py")
    options = ["--pyproject", "pyproject.toml", "--mc-type", "library", "--output-reproducible", "--sv", "1.6"]
    subprocess.run([program, "environment", runtime, *options, "-o", path], check=True)
    bom = json.loads(path.read_text(encoding="utf-8"))
    found = crates()
    bom["components"] += found
    bom["dependencies"] += [{"ref": crate["bom-ref"]} for crate in found]
    text = json.dumps(bom, indent=2, sort_keys=True) + "\n"
    if (error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)) is not None:
        sys.exit(f"error: the SBOM is not valid: {error}")
    path.write_text(text, encoding="utf-8")
    return path.read_bytes()


def main() -> None:
    """Write it where the two are the same."""
    again = SBOM.with_name(".again.json")
    try:
        if write(sys.argv[1], SBOM) != write(sys.argv[1], again):
            sys.exit("error: the SBOM is another one each time")
    finally:
        again.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
