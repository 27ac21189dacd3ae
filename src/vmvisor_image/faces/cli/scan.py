"""The command `scan`: a row for each of many images."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Executor

from vmvisor_image import fleet
from vmvisor_image.base.names import printable
from vmvisor_image.base.system_errors import in_words
from vmvisor_image.disk.explanation import counted
from vmvisor_image.errors import InvalidArgument, UsageError
from vmvisor_image.faces.cli.opening import limits_of
from vmvisor_image.faces.cli.progress import showing_progress
from vmvisor_image.faces.cli.show import print_rows, print_rows_as_json
from vmvisor_image.faces.cli.status import BAD_INPUT, DONE, MISUSE
from vmvisor_image.fleet import Row


def run_scan(options: argparse.Namespace) -> int:
    """Print or write a row for each image; bad input where any is not sound, misuse where there is none of them."""
    if options.json and options.out is not None:
        raise InvalidArgument("--json is for standard output: a DEST of --out that ends in .jsonl gets the same rows")
    if options.out is not None:
        written = options.out.replace("{", "{{").replace("}", "}}")  # it is a format
        options.left_behind, options.to_go_on = f"the rows written to {written} so far are whole", ["--force"]
    with contextlib.ExitStack() as stack:
        executor, workers = None, options.workers
        if options.scheduler is not None:
            executor, cores = stack.enter_context(_cluster(options.scheduler))
            workers = workers or cores
        sources = fleet.expand(options.sources, without=options.out)
        progress = stack.enter_context(showing_progress("scanning", "images"))
        if progress is not None:
            progress(0, len(sources))
        done = fleet.stream(
            sources,
            executor,
            workers=workers,
            threads=options.threads,
            detail=options.detail,
            limits=limits_of(options),
            salvage=options.salvage,
            provenance=options.provenance,
            certificates=options.certificate,
            host=options.host,
            progress=progress,
        )
        if isinstance(done, Generator):
            stack.callback(done.close)  # also where the rows can't be written
        missing: list[str] = []
        rows = _noting_missing(_in_order(done, sources), missing)
        if options.out is None and options.json:
            bad = print_rows_as_json(rows)
        elif options.out is None:
            bad = print_rows(rows, sources, is_salvaging=options.salvage)
        else:
            tally = fleet.write(rows, options.out, overwrite=options.force)
            print(f"{printable(options.out)}: {counted(tally.images, 'image')}, {tally.bad} of them bad")
            bad = tally.bad
    if sources and len(missing) == len(sources):
        return MISUSE  # as of a command that takes one source
    return BAD_INPUT if bad else DONE


def _noting_missing(rows: Iterator[Row], missing: list[str]) -> Iterator[Row]:
    """The same rows; the paths of sources that are not there are added to `missing`."""
    for row in rows:
        if row["error"] == FileNotFoundError.__name__:
            missing.append(row["path"])
        yield row


def _in_order(rows: Iterator[Row], sources: Sequence[object]) -> Iterator[Row]:
    """Rows in the order of their sources, so that two runs print the same; each waits for those before it.

    Where the rows end early, as on Ctrl-C, those that wait come before the error.
    """
    waiting: dict[str, list[Row]] = {}
    stopped: BaseException | None = None
    for source in sources:
        path = str(source).encode("utf-8", "backslashreplace").decode()  # as the rows have it
        while stopped is None and path not in waiting:
            try:
                row = next(rows)
            except BaseException as error:  # noqa: BLE001  # it is raised after the rows that wait
                stopped = error
            else:
                waiting.setdefault(row["path"], []).append(row)
        if path in waiting:
            yield waiting[path].pop(0)
            if not waiting[path]:
                del waiting[path]
    for left in waiting.values():
        yield from left
    if stopped is None:
        yield from rows
    elif not isinstance(stopped, StopIteration):
        raise stopped


@contextlib.contextmanager
def _cluster(address: str) -> Iterator[tuple[Executor, int]]:
    """Executor for tasks on a dask cluster, and its number of threads."""
    try:
        from distributed import Client
        from distributed.comm.addressing import resolve_address
    except ImportError as error:
        raise UsageError(f"{error}: pip install 'vmvisor-image[dask]'") from error
    try:
        resolve_address(address)  # first: a client with an invalid address complains when Python ends
        client = Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"no dask scheduler at {address!r}: {in_words(error)}") from error
    with client, client.get_executor() as executor:
        yield executor, sum(client.nthreads().values()) or 1
