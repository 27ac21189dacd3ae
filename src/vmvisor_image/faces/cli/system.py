"""The command `system`: what an image boots."""

from __future__ import annotations

import argparse
import json

from vmvisor_image.base.names import printable
from vmvisor_image.disk.banks import BootBank
from vmvisor_image.disk.partition_table import PartitionTable
from vmvisor_image.faces.cli.layout import print_item
from vmvisor_image.faces.cli.opening import bank_of, naming_a_bank, opened_image
from vmvisor_image.faces.cli.status import DONE
from vmvisor_image.faces.shared import columns_of, padded
from vmvisor_image.volumes.role import Role


def run_system(options: argparse.Namespace) -> int:
    """Print the system that an image boots."""
    with opened_image(options) as image:
        with naming_a_bank(options, image):
            system = image.system(bank_of(options.bank))
        options.problems += system.problems
        if system.home is not None:
            options.read = [system.home]
        if options.json:
            print(json.dumps(system.to_dict(hashes=True), indent=2))
            return DONE
        if options.files:
            for file in system.files.values():
                origin = padded(printable(system.files.origin(file.path)), 14)
                print(f"{file.size:>12}  {origin}  {printable(file.path)}")
            options.problems += system.files.problems
            return DONE
        named = f"{system.product or 'unknown product'} {system.version or ''} build {system.build or 'unknown'}"
        print(printable(named))
        for bank in system.banks:
            state = _state(bank, image.partitions)
            print_item(f"boot bank in partition {bank.key}: {bank.build or 'no build'}, {state}", "  ", hanging="    ")
        starts = image.partitions.active_bank is not None or any(bank.is_chosen_by_label for bank in system.banks)
        if system.banks and not starts and system.home is not None:
            print_item(
                f"the boot loader starts no bank; these are the modules of partition {system.home.key}:",
                "  ",
                hanging="    ",
            )
        names = [printable(module.name) for module in system.modules]
        sizes = ["missing" if module.size is None else f"{module.size} bytes" for module in system.modules]
        wide, long = (max(map(columns_of, column), default=0) for column in (names, sizes))
        for number, module in enumerate(system.modules):
            print_item(module.arguments, f"  {number:>3}  {padded(names[number], wide)}  {sizes[number]:>{long}}  ")
    return DONE


def _state(bank: BootBank, partitions: PartitionTable) -> str:
    active = partitions.active_bank
    if active is not None and active.number == bank.number:
        return "starts"
    if bank.is_chosen_by_label:
        is_first = partitions[bank.number].role is Role.BOOTBANK
        return "is chosen by its label" if is_first else "is not chosen, by its label"
    return "does not start: " + (bank.obstacle or "another one is newer, or as new and before it")
