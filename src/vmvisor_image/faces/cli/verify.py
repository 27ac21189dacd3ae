"""The command `verify`: every check of an image, and the hash of every file."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from vmvisor_image.base.destination import check_apart, write_whole
from vmvisor_image.base.names import printable
from vmvisor_image.disk.tables.table import is_lost
from vmvisor_image.errors import DestinationExists
from vmvisor_image.faces.cli.advice import no_disk
from vmvisor_image.faces.cli.damage import step_of_verification
from vmvisor_image.faces.cli.opening import limits_of
from vmvisor_image.faces.cli.progress import showing_progress
from vmvisor_image.faces.cli.show import print_verification
from vmvisor_image.faces.cli.status import BAD_INPUT, DONE
from vmvisor_image.packages.certificates import open_certificates
from vmvisor_image.reports.verification import verify
from vmvisor_image.streams.urls import is_url


def run_verify(options: argparse.Namespace) -> int:
    """Print the report of a verification; bad input where there is a problem."""
    if options.manifest is not None and not options.force and os.path.lexists(options.manifest):
        raise DestinationExists(f"{options.manifest} is already there")
    if options.manifest is not None and not is_url(options.source):
        check_apart(Path(options.manifest), options.source)
    certificates = open_certificates(*options.certificate)
    with showing_progress("verifying") as progress:
        report = verify(
            options.source,
            threads=options.threads,
            algorithms=("sha256", *dict.fromkeys(options.hash)),
            progress=progress,
            hashing=None if progress is None else progress.phase("hashing"),
            member=options.member,
            limits=limits_of(options),
            salvage=options.salvage,
            certificates=certificates,
        )
    is_no_disk = report.scheme == "none" and not report.partitions and len(report.problems) > 0
    if options.manifest is not None and not is_no_disk:
        write_whole(Path(options.manifest), report.manifest())
    if options.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print_verification(report)
    step = step_of_verification(report, options)
    if is_no_disk:
        first = next((each for each in report.problems if is_lost([each])), report.problems[0])
        error = no_disk(first, options.source, report.size, step)
        print(f"vmvisor-image: {printable(str(error))}", file=sys.stderr)
    elif step is not None:
        print(f"vmvisor-image: {printable(step)}", file=sys.stderr)
    return DONE if report.is_sound else BAD_INPUT
