"""Scans of thousands of images: one row for each, in threads, in processes or on a cluster.

`scan_one` is a plain module-level function that any engine can call: `concurrent.futures`, dask, Ray, Spark. `stream`
runs it on an executor and gives rows as they are done, `scan` makes a ``dask.bag`` of them, and `write` writes them to
a file.
"""

from __future__ import annotations

import contextlib
import glob
import io
import itertools
import json
import multiprocessing
import os
import re
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Final, TypedDict, TypeVar, Unpack, cast, get_args, get_type_hints

from vmvisor_image.base.cores import available_cores
from vmvisor_image.base.destination import check_replaceable, is_at, lock, publish, write_all, writing
from vmvisor_image.base.limits import Limits
from vmvisor_image.base.open_options import check_options
from vmvisor_image.base.system_errors import in_words
from vmvisor_image.boot.host import open_host
from vmvisor_image.boot.provenance import Verdict
from vmvisor_image.bzip2.index_file import CACHE_SUFFIX, INDEX_SUFFIX
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.tables.find import find_table
from vmvisor_image.errors import (
    CorruptImage,
    DestinationExists,
    DestinationFailed,
    InvalidArgument,
    NoDiskImage,
    NotAHost,
    PartitionNotFound,
    PathNotFound,
    Problem,
    SourceError,
    UsageError,
    VmvisorImageError,
)
from vmvisor_image.layers.containers import extents_among, is_disk_name
from vmvisor_image.packages.certificates import Certificate, CertificateSource, open_certificates
from vmvisor_image.reports.inspection import ImageReport
from vmvisor_image.reports.inspection import report as report_of
from vmvisor_image.reports.origins import origins_or_problem
from vmvisor_image.streams.opening import SourceLike, is_source, path_of
from vmvisor_image.streams.pipes import taking_pipes
from vmvisor_image.streams.sources import descriptor_of, is_pipe
from vmvisor_image.streams.urls import is_url

Progress = Callable[[int, int], None]
"""Callback with the number of images done and in total, from the thread that takes the rows."""

_T = TypeVar("_T")
_IN_FLIGHT_PER_WORKER: Final = 2
"""Images per worker, one that is read and one that waits, so that no worker is idle."""
_LARGEST_INTEGER: Final = (1 << 63) - 1
_JSON_LINES: Final = (".jsonl", ".ndjson")
_PARQUET: Final = ".parquet"
_PART: Final = re.compile(r"\.[0-9a-f]{16}-[0-9]+(-[0-9a-f]+)?\.part|^\.[0-9a-f]{16}\.part")
"""Names of files that `convert`, `extract` and others are writing, or left when they were interrupted."""


class Row(TypedDict):
    """Result for one image: flat, with only strings, numbers, booleans and None."""

    path: str
    """Absolute path, or URL; the name of its type in angle brackets for a source that has neither."""
    ok: bool
    """Whether it was read without an error or a problem."""
    error: str | None
    """Class of the exception, Python's own for a file that can't be opened; "Problem" where the image opens and a part
    of it is damaged; None if `ok`."""
    message: str | None
    """Message of the error, or of the first problem."""
    offset: int | None
    """Offset of the error or problem, in bytes; see `CorruptImage.offset`."""
    size: int | None
    """Bytes of the decoded disk; None where damage hides its end."""
    layers: str | None
    """Kinds of the layers, outermost first, with slashes between, such as "iso9660/tar/bzip2"; empty for none."""
    scheme: str | None
    """Kind of the partition table: "mbr", "gpt" or "none"."""
    generation: str | None
    """Name of the `Generation`, in lower case; None where it is not known."""
    active_bank: int | None
    """Number of the partition that the boot loader starts; None where it would start none."""
    product: str | None
    """Name of the product; like version and build from ``boot.cfg``, so that no kernel is decoded for it."""
    version: str | None
    """Version, such as "4.1.0"."""
    build: str | None
    """Build, such as "260247"."""
    partitions: int | None
    """Number of partitions."""
    files: int | None
    """Number of files in all volumes."""
    problems: int | None
    """Number of problems that were found."""
    packages: int | None
    """Number of installed packages; like the columns below, None without `provenance` and where nothing boots."""
    modules_verified: int | None
    """Number of modules behind which a trusted certificate stands; see `Verdict` for this and the next four."""
    modules_belonging: int | None
    modules_altered: int | None
    modules_unsigned: int | None
    modules_not_checked: int | None
    altered: str | None
    """Names of the altered modules, with spaces between; empty for none."""
    host: str | None
    """Name of the host; like the columns below, None without `host` in the options, and for what is no host's disk."""
    accounts: int | None
    """Number of accounts."""
    open_accounts: str | None
    """Names of the accounts without a password, with spaces between; empty for none."""
    machines: int | None
    """Number of virtual machines that are registered."""
    datastores: str | None
    """Names of the datastores, with commas between; empty for none."""
    seconds: float
    """Wall-clock time of the scan, in seconds."""
    report: str | None
    """`ImageReport.to_dict` as JSON; None without `detail`."""


_DTYPES: Final = {str: "string", bool: "boolean", int: "Int64", float: "float64"}

COLUMNS: Final = MappingProxyType(
    {name: _DTYPES[(get_args(hint) or (hint,))[0]] for name, hint in get_type_hints(Row).items()}
)
"""Name and pandas dtype of each column: ``scan(…).to_dataframe(meta=dict(COLUMNS))``."""


_SPARK: Final = {"string": "STRING", "boolean": "BOOLEAN", "Int64": "BIGINT", "float64": "DOUBLE"}


def spark_schema() -> str:
    """Schema of the rows for Spark, as a DDL string: ``rdd.map(scan_one).toDF(spark_schema())``."""
    return ", ".join(f"{name} {_SPARK[dtype]}" for name, dtype in COLUMNS.items())


_VERDICTS: Final = {
    "modules_verified": Verdict.VERIFIED,
    "modules_belonging": Verdict.BELONGS,
    "modules_altered": Verdict.ALTERED,
    "modules_unsigned": Verdict.UNSIGNED,
    "modules_not_checked": Verdict.NOT_CHECKED,
}


@dataclass(frozen=True, slots=True)
class Tally:
    """Numbers of images in a run."""

    images: int
    """Number of all images."""
    bad: int
    """Number of images whose row is not `ok`."""


class ScanOptions(TypedDict, total=False):
    """Keyword arguments of `scan_one`, which documents their meanings and defaults."""

    threads: int
    detail: bool
    limits: Limits | None
    storage_options: Mapping[str, Any] | None
    salvage: bool
    provenance: bool
    certificates: Sequence[CertificateSource]
    host: bool


def scan_one(  # noqa: PLR0913  # options by name, each a column or a way to read
    source: SourceLike,
    *,
    threads: int = 1,
    detail: bool = False,
    limits: Limits | None = None,
    storage_options: Mapping[str, Any] | None = None,
    salvage: bool = False,
    provenance: bool = False,
    certificates: Sequence[CertificateSource] = (),
    host: bool = False,
) -> Row:
    """Row of one image; an error in reading the image is reported in the row.

    The function and its result are picklable, for any engine: ``executor.map(scan_one, paths)``, ``rdd.map(scan_one)``,
    ``ray.remote(scan_one)``.

    Args:
        source: See `Image.open`; also a pipe, see `vmvisor_image.streams.pipes.PipeSource`.
        threads: Number of threads that decode the image; 1, as many images are read at once.
        detail: Whether to include the whole report, as JSON, in `Row.report`.
        limits: See `Image.open`; an image that exceeds one has a row with that error.
        storage_options: See `Image.open`; used for URLs only.
        salvage: See `Image.open`.
        provenance: Whether to fill the columns from `Row.packages` to `Row.altered`, for which every module is read and
            decoded; an altered module makes a row that is not `ok`.
        certificates: Certificates that the user trusts, as for `open_certificates`; any of them implies `provenance`.
        host: Whether to fill the columns from `Row.host` to `Row.datastores` by the saved configuration.

    Raises:
        DependencyMissing: There are certificates, and the extra ``crypto`` is not installed.
        UsageError: The call is wrong: `source` is nothing that `Image.open` takes, or `threads` is not valid.
    """
    begun = time.perf_counter()
    row = _empty_row(source)
    path = path_of(source)
    trusted = open_certificates(*certificates)
    if path is None or not is_url(path):
        storage_options = None
    with taking_pipes(source, limits) as given:
        image = Image(given, threads=threads, limits=limits, storage_options=storage_options, salvage=salvage)
        try:
            with image, image.limits.operation():
                row.update(_described(report_of(image), detail=detail))
                row["product"], row["version"], row["build"] = _identity(image)
                if provenance or certificates:
                    row.update(_origins(image, trusted, row))
                if host:
                    row.update(_host(image, row))
        except UsageError as error:
            if path is None and not isinstance(error, LookupError | OSError):
                raise
            row.update(_failure(error))  # a URL that nothing here reads, or a part that the image lacks
        except Exception as error:  # noqa: BLE001  # one image must not end a job of thousands, whatever happens to it
            row.update(_failure(error))
    row["ok"] = row["error"] is None
    row["seconds"] = time.perf_counter() - begun
    return cast("Row", {name: _storable(value) for name, value in row.items()})


def expand(
    sources: SourceLike | Iterable[SourceLike], *, without: str | os.PathLike[str] | None = None
) -> tuple[SourceLike, ...]:
    """Sources with patterns and directories replaced by the files in them, sorted, and with each path made absolute.

    Args:
        sources: One source of any kind, or a pattern, or a directory, or any number of them. A local path with ``*``,
            ``?`` or ``[`` that is not a file is a pattern, in which ``**`` matches any number of directories. It
            matches everything except directories: unreadable files, such as broken links, have a row. A directory
            stands for the images in it and in all directories below it: files with the suffix of a disk image or CD,
            maybe with that of a compression behind it, and any other file that opens as an image, or is damaged so
            that this can't be told; a VMDK's extents are read with its descriptor. What this library writes beside
            images (indexes, kept data, parts) is left out of both. URLs and sources that are not paths stay as they
            are.
        without: Path of a file that is left out of patterns and directories, such as the one to which rows are written.

    Raises:
        PathNotFound: A pattern matches no file, or there are only directories, and no image in them. A missing path
            that is not a pattern is an error in its row instead.
    """
    given = (sources,) if is_source(sources) else cast("Iterable[SourceLike]", sources)
    left_out = () if without is None else tuple(os.path.realpath(f"{os.fspath(without)}{end}") for end in ("", ".part"))
    found: list[SourceLike] = []
    barren: str | None = None
    for source in given:
        path = path_of(source)
        if path is None or is_url(path) or descriptor_of(path) is not None:
            found.append(source)
        elif os.path.isdir(path):  # noqa: PTH112  # Path.is_dir may raise
            inside = [each for each in _images_below(_absolute(path)) if os.path.realpath(each) not in left_out]
            found += inside
            barren = path if barren is None and not inside else barren
        elif not glob.has_magic(path) or os.path.lexists(path):
            found.append(_absolute(path))
        else:
            matches = [match for match in glob.iglob(path, recursive=True) if not os.path.isdir(match)]  # noqa: PTH112, PTH207  # a pattern may be absolute, and Path.is_dir may raise
            named = [each for each in map(_absolute, sorted(matches)) if not _is_own(each)]
            named = [each for each in named if os.path.realpath(each) not in left_out]
            if not named:
                raise PathNotFound(f"no file matches {path!r}; check the folder and the pattern")
            found += named
    if barren is not None and not found:
        raise PathNotFound(f"{barren}: no image is in this folder; name the files if they are images")
    return tuple(found)


def _is_own(path: str) -> bool:
    """Whether a path is that of something that this library writes beside images: an index, kept data, a part."""
    *above, name = Path(path).parts
    is_kept = name.endswith(INDEX_SUFFIX) or any(part.endswith(CACHE_SUFFIX) for part in above)
    return is_kept or _PART.search(name) is not None


def _images_below(folder: str) -> list[str]:
    """Sorted absolute paths of the images in a directory and all below it; links to directories are not followed."""
    found: list[str] = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.endswith(CACHE_SUFFIX)]
        parts = extents_among(names)
        paths = [os.path.join(root, name) for name in names if name not in parts]  # noqa: PTH118  # many of them
        found += [path for path in paths if not _is_own(path) and _is_image(path)]
    return sorted(found)


def _is_image(path: str) -> bool:
    """Whether a file of a directory is an image; any doubt, such as damage, counts as one, so that it has a row."""
    try:
        if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH110, PTH116  # as os.walk has them
            return False
        if is_disk_name(path):
            return True
        with Image.open(path, threads=1) as image:
            table = find_table(image.disk)
            return table.scheme != "none" or next(iter(table.entries()), None) is not None
    except NoDiskImage:
        return False
    except (VmvisorImageError, OSError):
        return True


def stream(
    sources: SourceLike | Iterable[SourceLike],
    executor: Executor | None = None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    **options: Unpack[ScanOptions],
) -> Iterator[Row]:
    """Rows in the order in which they are done; no more than a few images are in progress at once.

    Args:
        sources: See `expand`.
        executor: Executor for `scan_one`: a pool of `concurrent.futures`, ``distributed.Client.get_executor()``, or
            anything with a `submit` like theirs. None for separate processes, for which a script needs the usual
            ``if __name__ == "__main__":``.
        workers: Number of images read at once; None for one per core. With 1 and no executor, in this thread.
        progress: Called after each image.
        **options: See `scan_one`.

    Raises:
        PathNotFound: See `expand`.
        UsageError: See `scan_one`.
    """
    if workers is not None and workers < 1:
        raise InvalidArgument(f"workers must be at least 1, not {workers}")
    given = expand(sources)
    task = _task("stream", options)
    workers = workers or available_cores()
    # Open here and in no other process: pipes, and the file that standard input was redirected from.
    own: list[SourceLike] = []
    images: list[SourceLike] = []
    for image in given:
        (own if descriptor_of(image) is not None or is_pipe(image) else images).append(image)
    if executor is not None:
        rows = _on_executor(executor, task, images, workers)
    elif min(workers, len(images)) > 1:
        rows = _in_processes(task, images, min(workers, len(images)))
    else:
        rows = map(task, images)
    if own:
        rows = _joined(map(task, own), rows)
    return rows if progress is None else _told(rows, len(given), progress)


def scan(
    urls: SourceLike | Iterable[SourceLike],
    client: Any = None,
    *,
    images_per_task: int = 1,
    **options: Unpack[ScanOptions],
) -> Any:
    """Rows as a ``dask.bag.Bag``, one for each image; needs ``vmvisor-image[dask]``.

    Without a client the bag is lazy, and is computed in the threads of this process unless a ``distributed.Client`` is
    current or ``compute(scheduler=…)`` is used. ``bag.to_dataframe(meta=dict(COLUMNS))`` is a dask DataFrame.

    Args:
        urls: See `expand`; paths must mean the same on every worker.
        client: The current ``distributed.Client``, whose cluster begins at once and keeps the rows;
            ``distributed.progress(bag)`` shows its progress. None for a lazy bag.
        images_per_task: Number of images that one task reads one after the other; use more for many small ones.
        **options: See `scan_one`.

    Raises:
        PathNotFound: See `expand`.
        UsageError: dask is not installed, or an argument is out of range.
    """
    if images_per_task < 1:
        raise InvalidArgument(f"images_per_task must be at least 1, not {images_per_task}")
    try:
        from vmvisor_image.base.dask_bag import make_bag
    except ImportError as error:
        raise UsageError(f"{error}: pip install 'vmvisor-image[dask]'") from error
    task = _task("scan", options)
    bag = make_bag(expand(urls), task, images_per_task)
    return bag if client is None else client.persist(bag)


def write(
    rows: Iterable[Row], dest: str | os.PathLike[str], *, overwrite: bool = False, rows_per_group: int = 1000
) -> Tally:
    """Tally of rows written as they come: JSON Lines (``.jsonl``, ``.ndjson``) or Parquet (``.parquet``).

    JSON Lines can be read while it grows, and ends with a whole row unless this process is killed. Parquet, which needs
    ``vmvisor-image[parquet]``, grows as ``DEST.part`` and gets its name when this returns, or is interrupted, then with
    the rows so far. Where it is killed, or the rows can't be written, no file is made, and an earlier one stays.

    Args:
        rows: Rows from `stream`, or a computed bag.
        dest: Path of the file; its suffix gives the format.
        overwrite: Whether to replace the file where it exists.
        rows_per_group: Number of rows in a Parquet row group, which are kept in memory.

    Raises:
        DestinationExists: The file exists, is not a file that could be replaced, or another run writes it.
        DestinationFull: There is no room left.
        DestinationFailed: The file can't be written for another reason.
        InvalidArgument: The suffix is not one of these.
        UsageError: pyarrow is not installed.
    """
    path = Path(dest)
    if path.suffix in _JSON_LINES:
        put: Callable[[Path, Iterator[Row]], None] = partial(_write_json_lines, overwrite=overwrite)
    elif path.suffix == _PARQUET:
        put = _parquet_writer(rows_per_group, overwrite=overwrite)
    else:
        raise InvalidArgument(
            f"{path}: rows are written as JSON Lines or Parquet: give a name that ends in {' or '.join(_JSON_LINES)},"
            f" or in {_PARQUET}"
        )
    check_replaceable(path, overwrite=overwrite)
    images = bad = 0

    def counted() -> Iterator[Row]:
        nonlocal images, bad
        for row in rows:
            images += 1
            bad += not row["ok"]
            yield row

    put(path, counted())
    return Tally(images, bad)


def _write_json_lines(path: Path, rows: Iterator[Row], *, overwrite: bool) -> None:
    with _claimed(path, overwrite=overwrite) as file:
        with writing(path):
            file.truncate(0)
        for row in rows:
            end = file.tell()
            with writing(path):
                try:
                    write_all(file, f"{json.dumps(row)}\n".encode())
                except OSError:
                    file.truncate(end)  # whole rows only
                    raise
        with writing(path):
            path.stat()  # its directory may have been removed; writing to it then gave no error


@contextlib.contextmanager
def _claimed(path: Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """File at `path`, made where it is missing and locked against other runs.

    Raises:
        DestinationExists: It exists and may not be overwritten, or another run writes it.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | (0 if overwrite else os.O_EXCL)
    with writing(path):
        try:
            file = io.FileIO(os.open(path, flags, 0o666), "r+b")
        except FileExistsError as error:
            raise DestinationExists(f"{path} is already there") from error
    with file:
        if lock(file) is False or not is_at(path, file):
            raise DestinationExists(f"{path} is being written by another run")
        file.seek(0)
        yield file


def _parquet_writer(rows_per_group: int, *, overwrite: bool) -> Callable[[Path, Iterator[Row]], None]:
    if rows_per_group < 1:
        raise InvalidArgument(f"rows_per_group must be at least 1, not {rows_per_group}")
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(f"{error}: pip install 'vmvisor-image[parquet]'") from error
    types = {
        "string": pyarrow.string(),
        "boolean": pyarrow.bool_(),
        "Int64": pyarrow.int64(),
        "float64": pyarrow.float64(),
    }
    schema = pyarrow.schema([(name, types[dtype]) for name, dtype in COLUMNS.items()])

    def put(path: Path, rows: Iterator[Row]) -> None:
        target = Path(os.path.realpath(path))
        part = target.with_name(f"{target.name}.part")
        with _claimed(part, overwrite=True) as file:
            check_replaceable(target, overwrite=overwrite)  # again: another run may have ended meanwhile
            try:
                interruption = _grow_parquet(part, rows, schema, rows_per_group)
            except BaseException:
                file.close()  # Windows can't remove an open file
                with contextlib.suppress(OSError):
                    part.unlink()
                raise
            publish(file, part, target)
            if interruption is not None:
                raise interruption

    return put


def _grow_parquet(part: Path, rows: Iterator[Row], schema: Any, rows_per_group: int) -> BaseException | None:
    """Exception that interrupted writing the rows, after the rows so far were written; None without one.

    Raises:
        DestinationFailed: The rows can't be written.
    """
    from pyarrow import Table
    from pyarrow.parquet import ParquetWriter

    group: list[Row] = []

    def put() -> None:
        with writing(part):
            writer.write_table(Table.from_pylist(group, schema))
        group.clear()

    interruption: BaseException | None = None
    with writing(part):
        writer = ParquetWriter(part, schema)
    try:
        for row in rows:
            group.append(row)
            if len(group) == rows_per_group:
                put()
    except DestinationFailed:
        with contextlib.suppress(Exception):  # the first error says what is wrong
            writer.close()
        raise
    except BaseException as error:  # noqa: BLE001  # also Ctrl-C
        interruption = error
    if group:
        put()
    with writing(part):
        writer.close()
    return interruption


def _task(function: str, options: ScanOptions) -> Callable[[SourceLike], Row]:
    check_options(function, options, ScanOptions.__optional_keys__)
    threads = options.get("threads", 1)
    if threads < 1:
        raise InvalidArgument(f"threads must be at least 1, not {threads}")
    if options.get("certificates"):  # as bytes: the workers need not have the files, and opened ones can't be pickled
        options = {**options, "certificates": tuple(each.der for each in open_certificates(*options["certificates"]))}
    return partial(scan_one, **options)


def _on_executor(
    executor: Executor, task: Callable[[SourceLike], Row], images: Sequence[SourceLike], workers: int
) -> Iterator[Row]:
    for source, future in _in_flight(executor, task, iter(images), workers):
        error = future.exception()
        if isinstance(error, UsageError | BrokenExecutor):
            raise error
        yield future.result() if error is None else _failed(source, error)


def _in_processes(task: Callable[[SourceLike], Row], images: Sequence[SourceLike], workers: int) -> Iterator[Row]:
    """Rows from separate processes; an image that kills its process also has a row."""
    waiting = iter(images)
    suspects: list[SourceLike] = []
    with _processes(workers) as pool:
        try:
            pool.submit(int).result()
        except BrokenExecutor as broken:
            raise UsageError('no process can be started; a script needs `if __name__ == "__main__":`') from broken
    while True:
        with _processes(workers) as pool:
            # By the pool itself: its thread fails where its processes are gone and a future was cancelled from here.
            cancel = partial(pool.shutdown, cancel_futures=True)
            for source, future in _in_flight(pool, task, waiting, workers, cancel):
                error = future.exception()
                if isinstance(error, BrokenExecutor):
                    suspects.append(source)  # it, or one that was read at the same time
                else:
                    yield future.result()
        if not suspects:
            return
        for source in suspects:
            with _processes(1) as alone:
                future = alone.submit(task, source)
                error = future.exception()
                yield _failed(source, error) if isinstance(error, BrokenExecutor) else future.result()
        suspects.clear()


class _Processes(ProcessPoolExecutor):
    """A process pool whose `submit` starts processes with Ctrl-C blocked until they have begun."""

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        if sys.platform == "win32":
            return super().submit(fn, *args, **kwargs)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _processes(workers: int) -> ProcessPoolExecutor:
    # Spawned: a fork of a process with threads, as a caller's may be, can hang.
    return _Processes(workers, multiprocessing.get_context("spawn"), _begin_worker)


def _begin_worker() -> None:
    """Make a worker end at once with Ctrl-C, which all processes of a terminal get, and when its parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked so far: no traceback while it imports
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _in_flight(
    executor: Executor,
    task: Callable[[SourceLike], Row],
    waiting: Iterator[SourceLike],
    workers: int,
    cancel: Callable[[], None] | None = None,
) -> Iterator[tuple[SourceLike, Future[Row]]]:
    """Images with their futures as these are done; takes from `waiting` while there is room and the executor works.

    Futures that are pending at an early end are cancelled by `cancel`, or one by one.
    """
    pending: dict[Future[Row], SourceLike] = {}
    broken = False
    try:
        while True:
            room = 0 if broken else workers * _IN_FLIGHT_PER_WORKER - len(pending)
            for source in itertools.islice(waiting, room):
                pending[_submit(executor, task, source)] = source
            if not pending:
                return
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                broken = broken or isinstance(future.exception(), BrokenExecutor)
                yield pending.pop(future), future
    finally:
        if pending and cancel is not None:
            cancel()
        elif pending:
            for future in pending:
                future.cancel()


def _submit(executor: Executor, task: Callable[[SourceLike], Row], source: SourceLike) -> Future[Row]:
    try:
        return executor.submit(task, source)
    except BrokenExecutor as error:
        future: Future[Row] = Future()
        future.set_exception(error)
        return future


def _joined(*several: Iterable[Row]) -> Iterator[Row]:
    """Rows of several iterables in turn, like `itertools.chain`, but closing it closes the current iterable."""
    for rows in several:
        yield from rows


def _told(rows: Iterable[Row], total: int, progress: Progress) -> Iterator[Row]:
    for done, row in enumerate(rows, 1):
        progress(done, total)
        yield row


def _absolute(path: str) -> str:
    return os.path.abspath(path)  # noqa: PTH100  # Path.absolute leaves ".." in


def _empty_row(source: SourceLike) -> dict[str, Any]:
    path = path_of(source)
    name = f"<{type(source).__name__}>" if path is None else path
    return {**dict.fromkeys(COLUMNS), "path": name, "ok": False, "seconds": 0.0}


def _failed(source: SourceLike, error: BaseException) -> Row:
    """Row of an image whose task gave none."""
    return cast("Row", {name: _storable(value) for name, value in {**_empty_row(source), **_failure(error)}.items()})


def _failure(error: BaseException) -> dict[str, Any]:
    offset = error.offset if isinstance(error, CorruptImage) else None
    kind = type(error)
    if isinstance(error, SourceError):  # rows name Python's own class where there is one: they are compared by name
        kind = next((base for base in kind.__bases__ if base.__module__ == "builtins" and base is not OSError), kind)
    return {"error": kind.__name__, "message": in_words(error), "offset": offset}


def _described(report: ImageReport, *, detail: bool) -> dict[str, Any]:
    row = {
        "size": report.size,
        "layers": "/".join(kind for kind, _ in report.layers),
        "scheme": report.scheme,
        "generation": None if report.generation is None else report.generation.name.lower(),
        "active_bank": report.active_bank,
        "partitions": len(report.partitions),
        "files": sum(len(partition.files) for partition in report.partitions),
        "problems": len(report.problems),
        "report": json.dumps(report.to_dict()) if detail else None,
    }
    if report.problems:
        first = report.problems[0]
        row |= {"error": "Problem", "message": str(first), "offset": first.offset}
    return row


def _identity(image: Image) -> tuple[str | None, str | None, str | None]:
    """Product, version and build by ``boot.cfg`` only; a kernel would have to be decoded."""
    try:
        system = image.system()
    except PartitionNotFound:
        return None, None, None
    if system.configuration is None or not system.configuration.build:
        return None, None, None
    return system.identity


def _origins(image: Image, certificates: tuple[Certificate, ...], row: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of the origin of the modules; its problems count with those of the row."""
    origins, problems = origins_or_problem(image, certificates, always=True)
    found = _with_problems(row, problems)
    if origins is not None:
        found |= {name: origins.count(verdict) for name, verdict in _VERDICTS.items()}
        found |= {"packages": len(origins.packages), "altered": " ".join(origins.altered)}
    return found


def _host(image: Image, row: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of the host; its problems count with those of the row."""
    try:
        host = open_host(image)
    except NotAHost:
        return {}
    with host:
        found: dict[str, Any] = {
            "host": host.name,
            "accounts": len(host.accounts),
            "open_accounts": " ".join(each.name for each in host.accounts if each.is_open),
            "machines": len(host.machines),
            "datastores": ", ".join(each.name for each in host.datastores),
        }
        return found | _with_problems(row, host.problems)


def _with_problems(row: Mapping[str, Any], problems: Sequence[Problem]) -> dict[str, Any]:
    """Columns of a row with further problems, of which the first is its error if it has none."""
    found: dict[str, Any] = {"problems": row["problems"] + len(problems)}
    if problems and row["error"] is None:
        found |= {"error": "Problem", "message": str(problems[0]), "offset": problems[0].offset}
    return found


def _storable(value: Any) -> Any:
    """Value that its column can hold: an image can have numbers above 64 bits and texts that are not UTF-8."""
    if isinstance(value, int) and value > _LARGEST_INTEGER:
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value
