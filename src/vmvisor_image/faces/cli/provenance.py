"""The command ``provenance``."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import Final

from vmvisor_image.boot.provenance import ModuleProvenance, Provenance, Verdict, VibProvenance
from vmvisor_image.disk.explanation import counted
from vmvisor_image.faces.cli.layout import print_item, table_lines, table_width
from vmvisor_image.faces.cli.opening import bank_of, opened_image
from vmvisor_image.faces.cli.status import BAD_INPUT, DONE
from vmvisor_image.faces.shared import Column
from vmvisor_image.packages.certificates import open_certificates

_COLUMNS: Final = (Column("Module"), Column("Verdict"), Column("Package", 1, shortest=20))


def run_provenance(options: argparse.Namespace) -> int:
    """Print where each module of a system comes from; bad input where one is altered."""
    certificates = open_certificates(*options.certificate)
    with opened_image(options) as image:
        system = image.system(bank_of(options.bank))
        found = system.provenance(certificates)
        options.problems += (*system.problems, *found.problems)
        if options.json:
            shown = found.to_dict()
            if options.files:
                shown["unowned"] = list(found.unowned)
            print(json.dumps(shown, indent=2))
        else:
            _print(found, lists_files=options.files)
        is_bad = bool(found.altered) or any(vib.verdict is Verdict.ALTERED for vib in found.vibs)
    return BAD_INPUT if is_bad else DONE


def _print(found: Provenance, *, lists_files: bool) -> None:
    rows = [(each.name, each.verdict.value, each.vib or "-") for each in found.modules]
    print("\n".join(table_lines(_COLUMNS, rows, table_width())))
    _print_messages([each for each in found.modules if each.verdict is not Verdict.VERIFIED])
    vibs = [each for each in found.vibs if each.verdict is not Verdict.VERIFIED]
    if vibs:
        print("\npackages:")
        for vib in vibs:
            level = "" if vib.is_level_supported is not False else _unsupported(vib)
            print_item(f"{vib.id}: {vib.verdict.value}: {vib.message}{level}", "  ", hanging="    ")
    if lists_files:
        print("\nfiles of no package:")
        for path in found.unowned:
            print_item(path, "  ")
    print()
    counts = Counter(each.verdict for each in found.modules)
    named = ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict if counts[verdict])
    print_item(f"{counted(len(found.modules), 'module')}: {named}", "")
    if not found.has_database:
        print_item("there is no image database (imgdb.tgz): which package a module is of is not known", "")
    if not found.certificates:
        print_item("no certificate was given, so no signature was verified: --certificate FILE names one", "")


def _unsupported(vib: VibProvenance) -> str:
    return f"; it claims the acceptance level {vib.acceptance_level}, which needs a signature that is right"


def _print_messages(modules: list[ModuleProvenance]) -> None:
    """Print what was found of each module, those with the same words together."""
    messages: dict[str, list[str]] = {}
    for module in modules:
        messages.setdefault(module.message, []).append(module.name)
    if messages:
        print("\nmodules:")
    for message, names in messages.items():
        print_item(f"{', '.join(names)}: {message}", "  ", hanging="    ")
