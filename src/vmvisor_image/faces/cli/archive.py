"""The command `archive`: the files of an archive, and those in archives in it."""

from __future__ import annotations

import argparse

from vmvisor_image.archives.archive import Archive, open_archive
from vmvisor_image.errors import InvalidArgument, NotAnArchive
from vmvisor_image.faces.cli.advice import AGAIN, command, listed_by, with_step
from vmvisor_image.faces.cli.paths import write_out
from vmvisor_image.faces.cli.show import list_archive
from vmvisor_image.faces.cli.status import DONE
from vmvisor_image.files.file import File
from vmvisor_image.streams.opening import open_source
from vmvisor_image.streams.pipes import PipeSource, taking_pipes


def run_archive(options: argparse.Namespace) -> int:
    """Print a list of an archive's files, or write one of them to standard output."""
    with taking_pipes(options.source) as given, _archive(given, options) as whole:
        archive = whole
        for depth, path in enumerate(options.path[:-1]):
            archive = _member(archive, path, options, depth).open_archive()
        if options.path:
            file = _member(archive, options.path[-1], options, len(options.path) - 1)
            if not options.list:
                if options.json:
                    raise InvalidArgument("--json is for a list: give --list, too, or leave FILE out")
                return write_out(file)
            archive = file.open_archive()
        list_archive(archive, as_json=options.json)
        options.problems += archive.problems
    return DONE


def _member(archive: Archive, path: str, options: argparse.Namespace, depth: int) -> File:
    """A file of an archive, which lies in `depth` others."""
    way = options.path[:depth]
    with listed_by(command("archive", options.source, *way, *(["--list"] if way else []))):
        return archive[path]


def _archive(given: str | PipeSource, options: argparse.Namespace) -> Archive:
    """The archive at a path, or in a pipe."""
    source, paths = options.source, options.path
    try:
        return open_archive(given)
    except NotAnArchive as error:
        with open_source(given) as opened:
            is_empty = not opened.source.read_up_to(0, 1)
        if is_empty:
            step = AGAIN
        elif not paths:
            step = f"{command('info', source)} reads a disk image"
        elif options.list or len(paths) > 1:
            step = f"of a disk image, {command('module', source, *paths[:2])} shows that"
        else:
            step = f"of a disk image, {command('cat', source, paths[0])} writes that file"
        raise with_step(error, step) from error
