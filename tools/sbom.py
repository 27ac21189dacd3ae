"""`make sbom`: what a release is made of, as CycloneDX, in dist/sbom.cdx.json; validated, and made twice to compare."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SBOM = Path("dist/sbom.cdx.json")


def write(runtime: str, path: Path) -> bytes:
    """The SBOM of an environment that holds what a release needs to run."""
    program = Path(sys.executable).with_name("cyclonedx-py")
    options = ["--pyproject", "pyproject.toml", "--mc-type", "library", "--output-reproducible", "--validate"]
    subprocess.run([program, "environment", runtime, *options, "-o", path], check=True)
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
