"""Export for PXE on the command line, from an image or a bundle."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Mapping
from typing import Final

from vmvisor_image.base.names import printable
from vmvisor_image.base.open_options import Progress
from vmvisor_image.boot.pxe import PxeExport, export_pxe
from vmvisor_image.disk.image import Image
from vmvisor_image.errors import CorruptImage
from vmvisor_image.faces.cli.layout import print_item
from vmvisor_image.faces.cli.opening import bank_of, limits_of
from vmvisor_image.faces.cli.progress import doing, showing_progress
from vmvisor_image.packages.bundle import Bundle, find_bundle

_MOST_SHOWN: Final = 20
"""Most problems of packages that are printed."""


def export_of_bundle(options: argparse.Namespace, overlay: Mapping[str, str]) -> PxeExport | None:
    """Result of exporting the bundle that SRC is; None where it is an image."""
    bundle = _bundle(options)
    if bundle is None:
        return None
    with bundle, limits_of(options).operation(), showing_progress(doing(options.run)) as progress:
        options.problems += bundle.problems
        return export_of(bundle, options, overlay, progress)


def export_of(
    source: Image | Bundle, options: argparse.Namespace, overlay: Mapping[str, str], progress: Progress | None = None
) -> PxeExport:
    """Result of exporting an image or bundle by the options of ``pxe``."""
    return export_pxe(
        source,
        options.dest,
        profile=options.profile,
        add=options.add,
        label=options.label,
        overwrite=options.force,
        mode="install" if options.install else None,
        bank=bank_of(options.bank),
        prefix=options.prefix,
        kernel_options=options.kernel_option,
        ipxe=options.ipxe,
        overlay=overlay,
        keep_overlaid=options.overlay_keep,
        progress=progress,
    )


def print_packages(export: PxeExport) -> None:
    """Print what an export from a bundle was made of, and what of it may not work together."""
    if export.profile is None:
        return
    print_item(f"image profile {printable(export.profile)}", "  ", hanging="    ")
    for vib_id in export.added:
        print_item(f"added {printable(vib_id)}", "  ", hanging="    ")
    for vib_id in export.removed:
        print_item(f"left out {printable(vib_id)}, which an added package replaces", "  ", hanging="    ")
    for name in export.not_made:
        text = f"not made: {name}, which a CD has for its installer, and whose content is not documented"
        print_item(text, "  ", hanging="    ")
    for problem in export.problems[:_MOST_SHOWN]:
        print(f"vmvisor-image: {printable(problem.message)}", file=sys.stderr)
    if (more := len(export.problems) - _MOST_SHOWN) > 0:
        print(f"vmvisor-image: there are {more} more problems of this kind", file=sys.stderr)


def _bundle(options: argparse.Namespace) -> Bundle | None:
    if options.member is not None:
        return None  # a file of an archive is meant
    with contextlib.suppress(CorruptImage):  # what is wrong with it, opening it as an image says
        return find_bundle(options.source)
    return None
