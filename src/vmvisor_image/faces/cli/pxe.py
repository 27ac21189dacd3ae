"""The command `pxe`: what a PXE server needs, from an image or a bundle."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from vmvisor_image.base.names import printable
from vmvisor_image.base.open_options import Progress
from vmvisor_image.boot.bootable import find_boot_partition, find_bootable
from vmvisor_image.boot.pxe import PxeExport, export_pxe
from vmvisor_image.disk.explanation import counted
from vmvisor_image.disk.image import Image
from vmvisor_image.errors import CorruptImage
from vmvisor_image.faces.cli.layout import print_item
from vmvisor_image.faces.cli.opening import bank_of, limits_of, naming_a_bank, opened_image
from vmvisor_image.faces.cli.progress import doing, showing_progress
from vmvisor_image.faces.cli.status import BAD_INPUT, DONE
from vmvisor_image.packages.bundle import Bundle, find_bundle

_OVERLAID: Final = "oem.tgz"
"""Name of the module for additions by others."""
_MOST_SHOWN: Final = 20
"""Most problems of packages that are printed."""


def run_pxe(options: argparse.Namespace) -> int:
    """Write the files that a PXE server needs; bad input where a module or package is missing."""
    overlay = _overlays(options.overlay)
    if (found := _export_of_bundle(options, overlay)) is not None:
        return _print_export(found, options)
    with opened_image(options) as image, naming_a_bank(options, image):
        export = _export_of(image, options, overlay)
        if not options.install and (home := find_bootable(image, bank_of(options.bank)).home) is not None:
            options.read = [*filter(None, (home, find_boot_partition(image)))]
    return _print_export(export, options)


def _overlays(given: Sequence[str]) -> dict[str, str]:
    """Directories by module."""
    found = {}
    for text in given:
        module, separator, folder = text.partition("=")
        found[module if separator else _OVERLAID] = folder if separator else text
    return found


def _export_of_bundle(options: argparse.Namespace, overlay: Mapping[str, str]) -> PxeExport | None:
    """Result of exporting the bundle that SRC is; None where it is an image."""
    bundle = _bundle(options)
    if bundle is None:
        return None
    with bundle, limits_of(options).operation(), showing_progress(doing(options.run)) as progress:
        options.problems += bundle.problems
        return _export_of(bundle, options, overlay, progress)


def _export_of(
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


def _print_packages(export: PxeExport) -> None:
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


def _print_export(export: PxeExport, options: argparse.Namespace) -> int:
    if export.default is None:
        boots = "no entry of PXELINUX, as there is no loader for BIOS"
    elif export.default.casefold() == export.label.casefold():
        boots = f"label {export.label} boots"
    else:
        boots = f"label {export.label} was added, {printable(export.default)} boots when nobody chooses"
    print(f"{counted(len(export.files), 'file')} written to {printable(options.dest)}; {boots}")
    print(f"  kernel {export.kernel}")
    print(f"  append {printable(export.append)}")
    for option in export.left_out:
        print(f"  left out of the kernel's options: {printable(option)}, which means nothing over the network")
    _print_packages(export)
    for name in export.missing:
        print(f"vmvisor-image: boot.cfg names {printable(name)}, which the boot bank lacks", file=sys.stderr)
    return BAD_INPUT if export.missing or export.problems else DONE
