"""Commands that list: ``ls``, ``tree`` and ``find``; ``--json`` gives the same facts as one document.

The document has ``entries``, ``partitions`` and ``problems``. The ``path`` of an entry is ``PARTITION/PATH``, as every
command takes it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

from vmvisor_image.base.names import printable
from vmvisor_image.disk.datastore import Datastore
from vmvisor_image.disk.explanation import counted
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import Partition
from vmvisor_image.errors import CorruptImage, NotAFileSystem, Problem
from vmvisor_image.faces.cli.advice import located
from vmvisor_image.faces.cli.layout import complain
from vmvisor_image.faces.cli.opening import check_needed_table, check_partitions, opened_image
from vmvisor_image.faces.cli.show import list_files, list_others
from vmvisor_image.faces.cli.status import BAD_INPUT, DONE
from vmvisor_image.faces.cli.targets import (
    Target,
    no_match,
    opened_search,
    opened_target,
    partition_target,
    target_in,
)
from vmvisor_image.files.file import Directory, File
from vmvisor_image.files.patterns import has_wildcards
from vmvisor_image.volumes.volume import OtherEntry, complete

_BRANCHES: Final = {True: ("├── ", "└── ", "│   "), False: ("|-- ", "`-- ", "|   ")}
"""Lines before an entry, before the last one, and beside what is below an entry; for Unicode, and for ASCII."""


def run_ls(options: argparse.Namespace) -> int:
    """Print the files of a partition, or of each, or what a directory holds."""
    if options.target is None and not options.device:
        return _list_image(options)
    with opened_target(options) as target:
        holder = target.holder
        if target.rest is None:
            if options.json:
                _print_json_of(target, [*_all_entries(target)])
            else:
                list_files(holder.files)
                list_others(holder)
            return DONE
        shown = [*_shown(target, target.entry(), is_deep=options.recursive)]
        if options.json:
            _print_json_of(target, [entry_of(target, each) for each, _ in shown])
        else:
            for each, name in shown:
                print(_row(each, name) if options.long else printable(name))
            if isinstance(holder, Datastore):
                complain(holder.problems)
    return DONE


def _list_image(options: argparse.Namespace) -> int:
    with opened_image(options) as image:
        check_partitions(image, options)
        entries: list[dict[str, Any]] = []
        targets: list[Target] = []
        unread: list[Partition] = []
        for partition in image.partitions:
            if partition.is_container:
                continue
            heading = f"Partition {partition.key} {printable(partition.label or '')} ({partition.kind}):"
            try:
                files = partition.files
            except NotAFileSystem:
                unread.append(partition)
                if not options.json:
                    print(f"{heading} no files that can be read")
                continue
            except CorruptImage as error:  # the other partitions can be read
                options.problems.append(Problem.of(error))
                continue
            if options.json:
                targets.append(partition_target(image, partition))
                entries += _all_entries(targets[-1])
            else:
                print(heading)
                list_files(files)
                list_others(partition)
        if options.json:
            print_json(image, entries, targets, unread)
    return DONE


def _shown(
    target: Target, found: Directory | File, *, is_deep: bool
) -> Iterator[tuple[Directory | File | OtherEntry, str]]:
    """Entries to list, each with its path from where the list begins; a directory's ends with a slash."""
    if isinstance(found, File):
        yield found, found.path
        return
    below = len(found.path) + 1 if found.path else 0
    for here, _, _ in found.walk():
        for each in here:  # in the order of the directory
            yield each, each.path[below:] + ("/" if isinstance(each, Directory) else "")
        for other in _others(target):
            if other.path and other.path.rpartition("/")[0] == here.path:
                yield other, other.text[below:]
        if not is_deep:
            return


def _others(target: Target) -> tuple[OtherEntry, ...]:
    volume = target.holder.volume
    return () if volume is None else complete(volume).others


def _row(each: Directory | File | OtherEntry, name: str) -> str:
    """Row of a long list: bytes, or the kind; time; path."""
    if isinstance(each, OtherEntry):
        return f"{each.column:>12}  {'':19}  {printable(name)}"
    modified = "-" if each.modified is None else each.modified.isoformat(" ")
    size = each.size if isinstance(each, File) else "dir"
    return f"{size:>12}  {modified:19}  {printable(name)}"


def run_tree(options: argparse.Namespace) -> int:
    """Print directories and files as a tree."""
    if options.device:
        return _tree_of_datastore(options)
    with opened_image(options) as image:
        check_needed_table(image, options)
        if options.target is not None:
            target = target_in(image, options.target)
            options.read = [target.holder]
            wanted = [target]
            _ = target.holder.files  # it is named: not being readable is an error
        else:
            wanted = [partition_target(image, each) for each in image.partitions if not each.is_container]
        entries: list[dict[str, Any]] = []
        unread: list[Partition] = []
        for target in wanted:
            try:
                found = target.entry()
            except NotAFileSystem:
                if isinstance(target.holder, Partition):
                    unread.append(target.holder)
                    if not options.json:
                        print(f"{printable(target.name)} ({target.holder.kind}) has no files that can be read")
                continue
            if options.json:
                entries += [entry_of(target, each) for each, _ in _shown(target, found, is_deep=True)]
            else:
                _print_tree(target, found)
        if options.json:
            print_json(image, entries, [each for each in wanted if each.holder not in unread], unread)
    return DONE


def _tree_of_datastore(options: argparse.Namespace) -> int:
    with opened_target(options) as target:
        found = target.entry()
        if options.json:
            _print_json_of(target, [entry_of(target, each) for each, _ in _shown(target, found, is_deep=True)])
        else:
            _print_tree(target, found)
            complain(target.holder.problems)
    return DONE


def _print_tree(target: Target, top: Directory | File) -> None:
    """Print the tree below a directory: in each one the files first, so that nothing has to be kept."""
    print(printable(f"{target.name}/{top.path}" if top.path else target.name))
    if isinstance(top, File):
        return
    branch, last_branch, beside = _branches()
    before: dict[int, str] = {}
    """Text before what is in a directory, by the directory's identity."""
    heads: dict[int, str] = {id(top): ""}
    count_directories = count_files = 0
    for here, directories, files in top.walk():
        indent = before.pop(id(here), "")
        if here is not top:
            print(f"{heads.pop(id(here))}{printable(here.name)}/")
            count_directories += 1
        count_files += len(files)
        others = [each for each in _others(target) if each.path and each.path.rpartition("/")[0] == here.path]
        leaves = [file.name for file in files] + [each.text[len(here.path) + bool(here.path) :] for each in others]
        for number, leaf in enumerate(leaves, 1):
            is_last = number == len(leaves) and not directories
            print(f"{indent}{last_branch if is_last else branch}{printable(leaf)}")
        for number, directory in enumerate(directories, 1):
            is_last = number == len(directories)
            heads[id(directory)] = f"{indent}{last_branch if is_last else branch}"
            before[id(directory)] = f"{indent}{'    ' if is_last else beside}"
    directories_text = "1 directory" if count_directories == 1 else f"{count_directories} directories"
    print(f"{directories_text}, {counted(count_files, 'file')}")


def _branches() -> tuple[str, str, str]:
    """Lines of a tree, in characters that standard output can show."""
    encoding = sys.stdout.encoding or "ascii"
    try:
        "├└│".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return _BRANCHES[False]
    return _BRANCHES[True]


def run_find(options: argparse.Namespace) -> int:
    """Print the files that match a pattern; bad input where none does."""
    with opened_search(options) as searched:
        targets: dict[int | None, Target] = {}
        entries: list[dict[str, Any]] = []
        is_found = False
        for target, file in searched.matching(options.pattern):
            is_found = True
            if options.json:
                targets.setdefault(target.number, target)
                entries.append(entry_of(target, file))
            else:
                path = f"{target.name}/{file.path}"
                print(_row(file, path) if options.long else printable(path))
        if options.json:
            _print(entries, [*targets.values()], (), searched.problems)
        elif searched.store is not None:
            complain(searched.problems)
        if is_found:
            return DONE
        is_name = "/" not in options.pattern and not has_wildcards(options.pattern)
        names = dict.fromkeys(file.name for _, file in searched.matching("**")) if is_name else ()
        error = located(no_match(options.pattern, searched.has, names), options.source, options)
        print(f"vmvisor-image: {printable(str(error))}", file=sys.stderr)
    return BAD_INPUT  # as of grep: the search went well, and found nothing


def _all_entries(target: Target) -> Iterator[dict[str, Any]]:
    """Files of a volume, and what else is in its directories, as `list_files` and `list_others` print them."""
    for file in target.holder.files.values():
        yield entry_of(target, file)
    for other in _others(target):
        yield entry_of(target, other)


def entry_of(target: Target, each: Directory | File | OtherEntry) -> dict[str, Any]:
    """Facts about an entry of a directory."""
    where = {"path": f"{target.name}/{each.path}", "partition": target.number}
    if isinstance(each, OtherEntry):
        return {**where, "type": "link" if each.column == "link" else "other", "text": each.text}
    modified = None if each.modified is None else each.modified.isoformat()
    if isinstance(each, File):
        return {**where, "type": "file", "size": each.size, "modified": modified}
    return {**where, "type": "directory", "modified": modified}


def _print_json_of(target: Target, entries: Sequence[dict[str, Any]]) -> None:
    _print(entries, [target], (), target.holder.problems)


def print_json(
    image: Image, entries: Sequence[dict[str, Any]], targets: Sequence[Target], unread: Sequence[Partition]
) -> None:
    """Print a list as JSON.

    Args:
        image: Image that was read.
        entries: Entries of the list.
        targets: Partitions that were read.
        unread: Partitions without files that can be read.
    """
    _print(entries, [*targets, *(partition_target(image, each) for each in unread)], unread, image.known_problems)


def _print(
    entries: Sequence[dict[str, Any]],
    targets: Sequence[Target],
    unread: Sequence[Partition],
    problems: Sequence[Problem],
) -> None:
    without_files = {partition.number for partition in unread}
    partitions = [
        {
            "name": target.name,
            "number": target.number,
            "label": target.holder.label,
            "kind": target.holder.kind,
            "has_files": target.number not in without_files,
        }
        for target in targets
    ]
    partitions.sort(key=lambda each: each["number"] or 0)
    found = {"entries": entries, "partitions": partitions, "problems": [dataclasses.asdict(each) for each in problems]}
    print(json.dumps(found, indent=2))
