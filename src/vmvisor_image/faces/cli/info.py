"""The command `info`: an image, one of its partitions, or what a search finds."""

from __future__ import annotations

import argparse
import json

from vmvisor_image.base.names import printable
from vmvisor_image.errors import InvalidArgument
from vmvisor_image.faces.cli.advice import no_disk, way_of
from vmvisor_image.faces.cli.damage import step_past_damage
from vmvisor_image.faces.cli.opening import image_of, named_partition, opened_image
from vmvisor_image.faces.cli.progress import showing_progress
from vmvisor_image.faces.cli.search import print_search
from vmvisor_image.faces.cli.show import print_partition, print_report
from vmvisor_image.faces.cli.status import BAD_INPUT, DONE
from vmvisor_image.reports.inspection import report as report_of


def run_info(options: argparse.Namespace) -> int:
    """Print the report of an image, or the details of one partition, or what a search finds."""
    if options.fields and options.partition is None:
        raise InvalidArgument("--fields is for one partition: name it behind SRC")
    if options.search:
        if options.partition is not None:
            raise InvalidArgument("--search is for the whole image: leave the partition out")
        with opened_image(options) as image:
            print_search(image, options)
        return DONE
    if options.partition is not None:
        if options.json:
            raise InvalidArgument("--json is for the whole image: leave the partition out")
        with opened_image(options) as image:
            partition = named_partition(image, options.partition)
            options.read = [partition]
            print_partition(partition, fields=options.fields)
        return DONE
    with showing_progress() as progress, image_of(options, options.source, progress) as image:
        report = report_of(image)
        step = step_past_damage(image, options) if report.problems else None
    is_disk = report.scheme != "none" or report.partitions or not report.problems
    if options.json:
        print(json.dumps(report.to_dict(), indent=2))
    elif is_disk or report.layers:  # these say something of it
        print_report(report, explain=options.explain)
    if not is_disk:
        raise no_disk(report.problems[0], options.source, report.size, step, way_of(options))
    options.problems += report.problems
    options.step = step
    return _check(options) if options.checksums else DONE


def _check(options: argparse.Namespace) -> int:
    with opened_image(options) as image:
        found = image.checksums()
    if not found:
        print("\nno checksum file lies beside what was taken out")
    for checksum in found:
        verdict = "right" if checksum.is_right else f"WRONG: {checksum.found}, not {checksum.expected}"
        print(f"\n{printable(checksum.path)}: {checksum.algorithm} of {printable(checksum.listed_in)} is {verdict}")
    return DONE if all(checksum.is_right for checksum in found) else BAD_INPUT
