"""The commands `convert` and `index`, which write something that is quicker to read again, or a raw disk."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from vmvisor_image.base.names import printable
from vmvisor_image.compressions.peel import BZIP2
from vmvisor_image.disk.convert import check_suffix, convert, is_raw
from vmvisor_image.disk.tables.find import find_table
from vmvisor_image.errors import DestinationExists
from vmvisor_image.faces.cli.advice import no_disk, way_of
from vmvisor_image.faces.cli.opening import limits_of, opened_image
from vmvisor_image.faces.cli.status import BAD_INPUT, DONE
from vmvisor_image.streams.pipes import taking_pipes


def run_index(options: argparse.Namespace) -> int:
    """Write the index of a compressed image."""
    if options.with_data and options.cache is None:
        options.cache = True
    with opened_image(options) as image:
        layers, size, problems = image.layers, image.size, image.layer_problems
    path = getattr(layers[0].source, "index_path", None) if layers else None
    if path is None:
        kind = layers[0].kind if layers else "not compressed"
        reason = f"is {kind}, and only bzip2 needs one: use it as it is"
        if problems and kind == BZIP2:
            reason = "has no healthy block before the damage"
        print(f"vmvisor-image: no index was written: {printable(options.source)} {reason}", file=sys.stderr)
        return BAD_INPUT
    print(f"{printable(path)}: {os.path.getsize(path)} bytes for {size} bytes of data")  # noqa: PTH202
    return DONE


def run_convert(options: argparse.Namespace) -> int:
    """Write the decoded image as seekable zstd, or as a raw disk."""
    given = options.source
    check_suffix(Path(options.dest))  # before waiting for a pipe
    if not options.force and os.path.lexists(options.dest):
        raise DestinationExists(f"{options.dest} is already there")
    with taking_pipes(options.source, limits_of(options)) as options.source, opened_image(options) as image:
        table = image.partitions
        is_virtual = image.chain[0].kind != "raw"  # which is a disk even if it has no partition table
        is_disk = is_virtual or next(table.find(), None) is not None or len(table.or_found()) > 0
        if not is_disk and (problems := table.problems):  # nothing is written of what is no disk
            raise no_disk(problems[0], given, image.known_size, way=way_of(options))
        if is_raw(Path(options.dest)):
            options.left_behind, options.going_on = "nothing is left behind", "begin again"
        done = convert(image, options.dest, level=options.level, threads=options.threads, overwrite=options.force)
        if find_table(image.disk).scheme != "none":  # of a truncated disk, the existing part was converted
            options.problems += image.partitions.problems
        resumed = f" (the first {done.resumed_at} from an earlier run)" if done.resumed_at else ""
        stored = "" if is_raw(Path(options.dest)) else f" in {done.compressed}"
        print(f"{printable(options.dest)}: {done.size} bytes{resumed}{stored}")
    return DONE
