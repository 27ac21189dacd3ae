"""The command ``diff``."""

from __future__ import annotations

import argparse
import dataclasses
import json

from vmvisor_image.base.names import printable
from vmvisor_image.disk.explanation import counted
from vmvisor_image.errors import InvalidArgument
from vmvisor_image.faces.cli.machine_disk import refuse_disk
from vmvisor_image.faces.cli.opening import check_partitions, opened_image
from vmvisor_image.faces.cli.status import BAD_INPUT, DONE
from vmvisor_image.reports.comparison import compare


def run_diff(options: argparse.Namespace) -> int:
    """Print what differs between two images; bad input where anything does."""
    if options.index not in (None, "auto"):
        raise InvalidArgument("--index FILE is of one image: for two of them it has to be --index auto")
    sources = (options.source, options.second)
    with opened_image(options, sources[0]) as first, opened_image(options, sources[1]) as second:
        refuse_disk(options)
        for image, source in ((first, sources[0]), (second, sources[1])):
            if not len(image.partitions.or_found()):
                check_partitions(image, options, source)
        found = compare(first, second)
        problems = [*first.known_problems, *second.known_problems, *found.problems]
    if options.json:
        shown = found.to_dict()
        shown["problems"] = [dataclasses.asdict(problem) for problem in dict.fromkeys(problems)]
        print(json.dumps({"first": sources[0], "second": sources[1], **shown}, indent=2))
    else:
        for difference in found.differences:
            mark = {"first": "-", "second": "+", "both": "~"}[difference.side]
            print(f"{mark} {printable(str(difference))}")
        if found.is_same:
            compared = f"{counted(found.partitions, 'partition')} and {counted(found.files, 'file')} compared"
            print(f"no difference: {compared}")
    options.problems += found.problems
    return DONE if found.is_same else BAD_INPUT
