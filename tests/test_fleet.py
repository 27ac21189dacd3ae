"""Many images: one row for each on any engine, bad ones among them, written as they are done."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import json
import os
import pickle
import pty
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas
import pyarrow.parquet
import pytest

from tests.http_server import Server
from tests.killing_task import die
from tests.media import small_disk
from tests.support import HANGS, end_group, run, wait_until
from vmvisor_image import DestinationExists, Image, InvalidArgument, PathNotFound, UsageError, convert, fleet, inspect
from vmvisor_image.faces.cli import main
from vmvisor_image.fleet import COLUMNS, Row, Tally, expand, scan, scan_one, stream, write

DONE, BAD_INPUT, MISUSE = 0, 1, 2
GOOD = 4


def _disk(build: int) -> bytes:
    configuration = f"kernel=b.z\nmodules=k.z\nbuild=4.1.0-{build}\nupdated=1\nbootstate=0\n"
    disk = small_disk({"boot.cfg": configuration.encode(), "b.z": b"kernel", "k.z": b"module"})
    return bz2.compress(disk.read_at(0, disk.size))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four healthy images in two folders, one cut short, and one that is no image."""
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "deep/er").mkdir(parents=True)
    for number in range(GOOD):
        place = folder if number % 2 else folder / "deep/er"
        (place / f"disk{number}.dd.bz2").write_bytes(_disk(260240 + number))
    whole = (folder / "disk1.dd.bz2").read_bytes()
    (folder / "deep/cut.dd.bz2").write_bytes(whole[: len(whole) // 2])
    (folder / "text.dd.bz2").write_bytes(b"not compressed at all")
    return folder


@pytest.fixture
def pattern(folder: Path) -> str:
    return str(folder / "**/*.bz2")


def check(rows: list[Row], folder: Path) -> None:
    """The rows are those of `folder`, in whatever order."""
    by_name = {Path(row["path"]).name: row for row in rows}
    assert len(rows) == len(by_name) == GOOD + 2
    for number in range(GOOD):
        row = by_name[f"disk{number}.dd.bz2"]
        assert row["ok"]
        assert (row["error"], row["message"], row["offset"]) == (None, None, None)
        assert (row["version"], row["build"]) == ("4.1.0", str(260240 + number))
        assert (row["layers"], row["scheme"], row["size"]) == ("bzip2", "mbr", 16000 * 512)
        assert (row["partitions"], row["files"], row["problems"]) == (2, 4, 0)
    assert not by_name["cut.dd.bz2"]["ok"]
    assert by_name["cut.dd.bz2"]["offset"] is not None
    text = by_name["text.dd.bz2"]
    assert (text["ok"], text["error"], text["offset"], text["problems"]) == (False, "Problem", 0, 1)


class TestFolders:
    """A folder stands for the images in it: by their names, or else by what is in them."""

    @pytest.fixture
    def mixed(self, tmp_path: Path) -> Path:
        root = tmp_path / "mixed"
        (root / "below" / "deep").mkdir(parents=True)
        disk = small_disk({"boot.cfg": b"build=4.1.0-260241\n"})
        disk.write_to(root / "a.dd")
        whole = (root / "a.dd").read_bytes()
        (root / "below" / "imagedd.bz2").write_bytes(bz2.compress(whole))  # by its content
        (root / "below" / "deep" / "no suffix").write_bytes(whole)
        (root / "below" / "b.dd.bz2").write_bytes(bz2.compress(whole)[:100])  # by its name
        (root / "cut.bz2").write_bytes(bz2.compress(whole)[:100])  # whether it is an image can't be told
        run("qemu-img", "convert", "-O", "vmdk", "-o", "subformat=monolithicFlat", root / "a.dd", root / "v.vmdk")
        with zipfile.ZipFile(root / "disk.zip", "w") as archive:
            archive.writestr("disk.dd", whole)
        return root

    IMAGES = ("a.dd", "below/b.dd.bz2", "below/deep/no suffix", "below/imagedd.bz2", "cut.bz2", "disk.zip", "v.vmdk")

    def test_what_is_in_it_and_below(self, mixed: Path) -> None:
        assert (mixed / "v-flat.vmdk").exists()
        assert expand(mixed) == tuple(str(mixed / name) for name in self.IMAGES)
        assert expand([mixed / "below", mixed / "a.dd"])[-1] == str(mixed / "a.dd")

    def test_what_is_no_image_is_left_out(self, mixed: Path, tmp_path: Path) -> None:
        (mixed / "README.txt").write_text("These are images.\n")
        (mixed / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + os.urandom(6000))
        (mixed / "empty").touch()
        (mixed / "log.gz").write_bytes(gzip.compress(b"a line\n" * 1000))
        with zipfile.ZipFile(mixed / "notes.zip", "w") as archive:
            archive.writestr("a.txt", "a")
            archive.writestr("b.txt", "b")
        os.mkfifo(mixed / "pipe.dd")
        (mixed / "around").symlink_to(mixed)
        assert expand(mixed) == tuple(str(mixed / name) for name in self.IMAGES)

    def test_what_is_kept_beside_images_is_left_out(self, mixed: Path) -> None:
        with Image.open(mixed / "below" / "imagedd.bz2", index="auto", cache=True) as image:
            assert image.read_at(0, image.size)
        with contextlib.suppress(KeyboardInterrupt):
            convert(mixed / "a.dd", mixed / "a.zst", frame_size=1 << 16, progress=interrupt)
        made = {path.name for path in mixed.rglob("*")}
        assert any(name.endswith(".vmvisor-index") for name in made)
        assert any(name.endswith(".vmvisor-cache") for name in made)
        assert any(name.endswith(".part") for name in made)
        assert expand(mixed) == tuple(str(mixed / name) for name in self.IMAGES)
        beside = expand(str(mixed / "below" / "imagedd*"))
        assert beside == (str(mixed / "below" / "imagedd.bz2"),)

    def test_the_rows_are_not_scanned(self, mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for number in range(2):
            out = mixed / "rows.jsonl"
            line = ["scan", str(mixed), str(mixed / "*.jsonl") if number else str(mixed / "a.dd"), "--out", str(out)]
            if number:
                (mixed / "other.jsonl").write_bytes(bytes(512))
            assert main([*line, "--force", "--workers", "1"]) == 1
            paths = [json.loads(row)["path"] for row in out.read_text().splitlines()]
            assert str(out) not in paths
            assert {str(mixed / name) for name in self.IMAGES} <= set(paths)
        capsys.readouterr()

    def test_a_folder_without_images(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "notes.txt").write_text("none\n")
        with pytest.raises(PathNotFound, match="no image is in this folder"):
            expand(tmp_path)
        assert main(["scan", str(tmp_path)]) == 2
        assert "no image is in this folder; name the files if they are images" in capsys.readouterr().err

    def test_a_row_for_what_can_t_be_opened(self, mixed: Path) -> None:
        (mixed / "gone.dd").symlink_to(mixed / "nowhere")
        rows = {Path(row["path"]).name: row["error"] for row in stream(mixed, workers=1)}
        assert rows["gone.dd"] == "FileNotFoundError"
        assert rows["cut.bz2"] is not None
        assert rows["a.dd"] is None


def interrupt(done: int, total: int | None) -> None:
    raise KeyboardInterrupt


class TestOneRow:
    def test_says_what_the_report_says(self, folder: Path) -> None:
        path = folder / "disk1.dd.bz2"
        row = scan_one(path, detail=True)
        report = inspect(path)
        assert row["path"] == str(path)
        assert row["files"] == sum(len(partition.files) for partition in report.partitions)
        assert row["generation"] == (report.generation and report.generation.name.lower())
        assert json.loads(row["report"] or "") == json.loads(json.dumps(report.to_dict()))

    def test_is_flat_and_goes_through_json_and_pickle(self, pattern: str) -> None:
        for row in map(scan_one, expand(pattern)):
            assert list(row) == list(COLUMNS)
            assert {type(value) for value in row.values()} <= {str, int, float, bool, type(None)}
            assert json.loads(json.dumps(row)) == row == pickle.loads(pickle.dumps(row))

    def test_of_what_has_no_path(self, folder: Path) -> None:
        row = scan_one((folder / "disk1.dd.bz2").read_bytes())
        assert (row["ok"], row["path"]) == (True, "<bytes>")

    def test_of_a_file_that_is_not_there(self) -> None:
        row = scan_one("/nowhere/disk.dd")
        assert (row["ok"], row["error"], row["partitions"]) == (False, "FileNotFoundError", None)

    @pytest.mark.parametrize(
        ("url", "error"), [("no-such-protocol://x.dd", "InvalidArgument"), ("s3://bucket/x.dd", "DependencyMissing")]
    )
    def test_of_a_url_that_nothing_here_reads(self, url: str, error: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "s3fs", None)
        row = scan_one(url)
        assert (row["ok"], row["path"], row["error"]) == (False, url, error)

    def test_of_a_url_that_wants_a_password(self, server: Server, folder: Path) -> None:
        server.serve("disk.dd.bz2", folder / "disk1.dd.bz2").password = "secret"
        sources: list[Any] = [f"{server.url}/disk.dd.bz2", folder / "disk3.dd.bz2"]
        assert [row["error"] for row in stream(sources, workers=1)] == ["RemoteError", None]
        options = {"headers": {"Authorization": "secret"}}
        assert [row["build"] for row in stream(sources, workers=1, storage_options=options)] == ["260241", "260243"]
        assert [row["build"] for row in scan(sources, storage_options=options)] == ["260241", "260243"]

    def test_of_what_refers_to_something_that_is_not_there(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(image: Image) -> None:
            raise PathNotFound("no file 'disk-s001.vmdk'")

        monkeypatch.setattr(fleet, "report_of", fail)
        assert scan_one(folder / "disk1.dd.bz2")["error"] == "PathNotFound"

    def test_of_any_other_failure(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fleet, "report_of", lambda image: Path(os.devnull).relative_to("/nowhere"))
        assert scan_one(folder / "disk1.dd.bz2")["error"] == "ValueError"

    def test_holds_only_numbers_and_text_that_columns_take(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        described = fleet._described

        def hostile(*args: Any, **options: Any) -> dict[str, Any]:
            return described(*args, **options) | {"size": 1 << 80, "message": "name \udc80"}

        monkeypatch.setattr(fleet, "_described", hostile)
        row = scan_one(small_disk({}).read_at(0, 16000 * 512))
        assert (row["size"], row["message"]) == (None, "name \\udc80")
        write([row], tmp_path / "rows.parquet")

    @pytest.mark.parametrize("misuse", [lambda: scan_one(3), lambda: scan_one(b"", threads=0)])  # type: ignore[arg-type]  # that is the misuse
    def test_misuse_is_raised(self, misuse: Callable[[], Row]) -> None:
        with pytest.raises(UsageError):
            misuse()


class TestExpand:
    def test_patterns_paths_and_the_rest(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder)
        url = "https://host/[x]/*.bz2"
        deep = sorted(str(path) for path in folder.glob("deep/er/*"))
        assert expand(["deep/er/*.bz2", "gone.dd", url, b"data"]) == (*deep, str(folder / "gone.dd"), url, b"data")

    def test_a_file_whose_name_looks_like_a_pattern(self, tmp_path: Path) -> None:
        path = tmp_path / "disk[1].dd"
        path.touch()
        assert expand(path) == (str(path),)

    def test_folders_are_no_images(self, folder: Path) -> None:
        assert {Path(str(path)).suffix for path in expand(str(folder / "**"))} == {".bz2"}

    def test_a_pattern_that_matches_nothing(self, folder: Path) -> None:
        with pytest.raises(PathNotFound, match=r"no file matches '.*\*\.iso'"):
            expand(str(folder / "*.iso"))


def _threads() -> Executor:
    return ThreadPoolExecutor(2)


def _processes() -> Executor:
    return ProcessPoolExecutor(2, get_context("spawn"))


class TestStream:
    @pytest.mark.parametrize("executor", [_threads, _processes])
    def test_on_a_pool_of_the_callers(self, executor: Callable[[], Executor], folder: Path, pattern: str) -> None:
        with executor() as pool:
            check(list(stream(pattern, pool, workers=2)), folder)
            check(list(pool.map(scan_one, expand(pattern))), folder)  # or without `stream`

    @pytest.mark.parametrize("workers", [1, 2])
    def test_on_its_own(self, workers: int, folder: Path, pattern: str) -> None:
        seen: list[tuple[int, int]] = []
        rows = list(stream(pattern, workers=workers, progress=lambda done, total: seen.append((done, total))))
        check(rows, folder)
        assert seen == [(done, len(rows)) for done in range(1, len(rows) + 1)]

    def test_of_nothing(self) -> None:
        assert list(stream([], workers=2)) == []

    def test_few_are_in_flight(self, pattern: str) -> None:
        """However many images there are, only a few are handed out before a row is taken."""
        submitted = 0

        class Counting(ThreadPoolExecutor):
            def submit(self, *args: Any, **options: Any) -> Any:
                nonlocal submitted
                submitted += 1
                return super().submit(*args, **options)

        with Counting(2) as pool:
            rows = stream([*expand(pattern)] * 10, pool, workers=2)
            for taken, _ in enumerate(rows, 1):
                assert submitted <= taken + 4

    def test_leaving_early_drops_the_rest(self, pattern: str) -> None:
        rows = stream([*expand(pattern)] * 10, workers=2)
        next(iter(rows))
        assert isinstance(rows, Iterator)
        rows.close()  # type: ignore[attr-defined]  # a generator
        assert list(rows) == []

    def test_an_image_that_kills_its_process_is_a_row(self, folder: Path, pattern: str) -> None:
        rows = {Path(row["path"]).name: row for row in fleet._in_processes(die, expand(pattern), 2)}
        assert rows.pop("disk2.dd.bz2")["error"] == "BrokenProcessPool"
        assert len(rows) == GOOD + 1
        assert sum(row["ok"] for row in rows.values()) == GOOD - 1

    def test_a_pool_of_the_callers_that_breaks_is_an_error(self, pattern: str) -> None:
        from concurrent.futures.process import BrokenProcessPool

        with _processes() as pool, pytest.raises(BrokenProcessPool):
            list(fleet._on_executor(pool, die, expand(pattern), 2))

    def test_a_task_that_an_engine_gives_up_is_a_row(self) -> None:
        def give_up(source: Any) -> Row:
            raise RuntimeError("the worker was lost")

        with _threads() as pool:
            [row] = fleet._on_executor(pool, give_up, ["/a.dd"], 1)
        assert (row["path"], row["error"], row["message"]) == ("/a.dd", "RuntimeError", "the worker was lost")

    @pytest.mark.parametrize("options", [{"workers": 0}, {"threads": 0}])
    def test_misuse(self, options: dict[str, int]) -> None:
        with pytest.raises(InvalidArgument, match="at least 1"):
            stream([], **options)  # type: ignore[arg-type]  # mypy takes any option to be of any type

    @pytest.mark.parametrize("workers", [1, 2])
    def test_misuse_in_a_worker(self, workers: int) -> None:
        with pytest.raises(UsageError):
            list(stream([3, 4], workers=workers))  # type: ignore[list-item]  # that is the misuse

    def test_a_script_without_a_main_guard_is_told(self, pattern: str, tmp_path: Path) -> None:
        script = tmp_path / "script.py"
        script.write_text(f"from vmvisor_image.fleet import stream\nprint(list(stream({pattern!r}, workers=2)))\n")
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=HANGS)
        assert done.returncode == 1
        assert 'a script needs `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]


_COUNTS = """
import gc, os, sys, threading
from vmvisor_image import Image
from vmvisor_image.fleet import stream
for pairs in 5, 45:
    for _ in stream(sys.argv[1:] * pairs, workers=1):
        pass
    gc.collect()
    images = sum(isinstance(thing, Image) for thing in gc.get_objects())
    print(images, len(os.listdir("/proc/self/fd")), threading.active_count())
"""


def test_nothing_accumulates(folder: Path) -> None:
    """After a hundred images no more objects, file handles and threads are there than after ten.

    In a process of its own: what other tests left behind may end meanwhile, or begin.
    """
    command: list[str | Path] = [sys.executable, "-c", _COUNTS, folder / "disk1.dd.bz2", folder / "deep/cut.dd.bz2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=HANGS)
    ten, hundred = ([int(number) for number in line.split()] for line in done.stdout.splitlines())
    assert all(later <= sooner for sooner, later in zip(ten, hundred, strict=True)), (ten, hundred)


class TestDask:
    def test_threads(self, folder: Path, pattern: str) -> None:
        bag = scan(pattern)
        assert bag.npartitions == GOOD + 2
        assert scan(pattern, images_per_task=4).npartitions == 2
        check(bag.compute(), folder)
        assert bag.filter(lambda row: not row["ok"]).count().compute() == 2
        assert pickle.loads(pickle.dumps(bag)).count().compute() == GOOD + 2

    def test_in_this_process_by_default(self, folder: Path) -> None:
        seen: set[int] = set()
        scan(folder / "disk1.dd.bz2").map(lambda row: seen.add(os.getpid())).compute()
        assert seen == {os.getpid()}

    def test_dataframe(self, pattern: str, tmp_path: Path) -> None:
        frame = scan(pattern, images_per_task=4).to_dataframe(meta=dict(COLUMNS))
        assert frame[frame.ok].files.sum().compute() == GOOD * 4
        frame.to_parquet(tmp_path / "rows", write_index=False)
        assert pandas.read_parquet(tmp_path / "rows").ok.sum() == GOOD

    def test_a_cluster(self, folder: Path, pattern: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        """One of processes on this machine: the bag, the executor, and the command line by the scheduler's address."""
        from distributed import Client, LocalCluster

        options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "local_directory": str(tmp_path)}
        with LocalCluster(**options) as cluster, Client(cluster) as client:
            check(scan(pattern).compute(), folder)  # the current client is dask's own default
            check(scan(pattern, client).compute(), folder)
            with client.get_executor() as executor:
                check(list(stream(pattern, executor, workers=2)), folder)
            out = tmp_path / "rows.jsonl"
            assert main(["scan", pattern, "--out", str(out), "--scheduler", cluster.scheduler_address]) == BAD_INPUT
        check([json.loads(line) for line in out.read_text().splitlines()], folder)

    def test_misuse(self) -> None:
        with pytest.raises(InvalidArgument, match="images_per_task"):
            scan([], images_per_task=0)
        with pytest.raises(InvalidArgument, match="threads"):
            scan([], threads=0)


@pytest.mark.parametrize(
    ("package", "extra", "call"),
    [
        ("dask", "dask", lambda folder: scan([])),
        ("pyarrow", "parquet", lambda folder: write([], folder / "rows.parquet")),
        ("distributed", "dask", lambda folder: fleet_main("--scheduler", "tcp://localhost:1")),
    ],
)
def test_without_an_extra(
    package: str, extra: str, call: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "vmvisor_image.base.dask_bag", raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"pip install 'vmvisor-image\[{extra}\]'"):
        call(tmp_path)


def fleet_main(*arguments: str) -> None:
    """The command line, with its misuse raised as an error."""
    from vmvisor_image.faces.cli.main import _parser

    options = _parser().parse_args(["scan", "x", *arguments])
    options.run(options)


class TestWrite:
    @pytest.mark.parametrize("suffix", [".jsonl", ".ndjson"])
    def test_json_lines(self, suffix: str, folder: Path, pattern: str, tmp_path: Path) -> None:
        path = tmp_path / f"rows{suffix}"
        assert write(stream(pattern, workers=1), path) == Tally(images=GOOD + 2, bad=2)
        check([json.loads(line) for line in path.read_text().splitlines()], folder)
        assert sorted(pandas.read_json(path, lines=True).path) == sorted(map(str, expand(pattern)))

    def test_json_lines_grow_row_by_row(self, pattern: str, tmp_path: Path) -> None:
        path = tmp_path / "rows.jsonl"

        def rows() -> Iterator[Row]:
            for done, row in enumerate(stream(pattern, workers=1)):
                assert len(path.read_text().splitlines()) == done
                yield row

        write(rows(), path)

    def test_parquet(self, folder: Path, pattern: str, tmp_path: Path) -> None:
        path = tmp_path / "rows.parquet"
        assert write(stream(pattern, workers=1), path, rows_per_group=4) == Tally(images=GOOD + 2, bad=2)
        assert pyarrow.parquet.ParquetFile(path).num_row_groups == 2
        table = pyarrow.parquet.read_table(path)
        check(table.to_pylist(), folder)
        assert [str(table.schema.field(name).type) for name in ("ok", "size", "error")] == ["bool", "int64", "string"]
        assert pandas.read_parquet(path).ok.sum() == GOOD

    @pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
    def test_rows_so_far_are_kept_when_it_is_interrupted(self, suffix: str, pattern: str, tmp_path: Path) -> None:
        path = tmp_path / f"rows{suffix}"

        def rows() -> Iterator[Row]:
            yield scan_one(expand(pattern)[0])
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write(rows(), path)
        frame = pandas.read_parquet(path) if suffix == ".parquet" else pandas.read_json(path, lines=True)
        assert len(frame) == 1

    def test_nothing_is_replaced_unless_asked(self, tmp_path: Path) -> None:
        path = tmp_path / "rows.jsonl"
        path.write_text("kept")
        with pytest.raises(DestinationExists):
            write([], path)
        assert path.read_text() == "kept"
        assert write([], path, overwrite=True) == Tally(0, 0)
        assert path.read_text() == ""

    def test_misuse(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidArgument, match=r"\.jsonl or \.ndjson, or in \.parquet"):
            write([], tmp_path / "rows.csv")
        with pytest.raises(InvalidArgument, match="rows_per_group"):
            write([], tmp_path / "rows.parquet", rows_per_group=0)


def _runs(process: str) -> bool:
    """Whether a process is there and no zombie, which it stays where nobody waits for it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


# A shell's & has its children ignore Ctrl-C, which this process may have inherited.
_AS_IN_A_TERMINAL = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from vmvisor_image.faces.cli import main
raise SystemExit(main())
"""


class TestCommand:
    def test_a_table(self, pattern: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["scan", pattern, "--workers", "1"]) == BAD_INPUT
        out, err = capsys.readouterr()
        lines = out.splitlines()
        assert lines[0].split() == ["State", "Bytes", "Version", "Partitions", "Files", "Problems", "Layers", "Path"]
        assert sum(line.startswith("ok ") for line in lines) == GOOD
        assert sum(line.startswith("BAD ") for line in lines) == 2
        assert "4.1.0-260241" in out
        assert "less than one sector" in out
        assert err == ""

    def test_only_healthy_images(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["scan", str(folder / "disk*.bz2"), str(folder / "deep/er/*"), "--workers", "2"]) == DONE
        assert capsys.readouterr().out.count("\nok ") == GOOD

    def test_a_file(self, folder: Path, pattern: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "rows.parquet"
        arguments = ["scan", pattern, "--out", str(out), "--workers", "1", "--detail"]
        assert main(arguments) == BAD_INPUT
        assert capsys.readouterr().out == f"{out}: 6 images, 2 of them bad\n"
        rows = pyarrow.parquet.read_table(out).to_pylist()
        check(rows, folder)
        assert any("boot.cfg" in (row["report"] or "") for row in rows)
        assert main(arguments) == MISUSE
        assert main([*arguments, "--force"]) == BAD_INPUT

    @pytest.mark.parametrize(
        "arguments",
        [
            ["/nowhere/*.bz2"],
            ["x.dd", "--out", "rows.csv"],
            ["x.dd", "--workers", "0"],
            ["x.dd", "--scheduler", "nonsense://x"],
            ["x.dd", "--scheduler", "nonsense"],
        ],
    )
    def test_misuse(self, arguments: list[str]) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "vmvisor_image", "scan", *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == MISUSE
        assert done.stderr.count("\n") == 1, done.stderr  # also when Python has ended

    @pytest.fixture
    def busy(self, folder: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
        """A scan of many images by two workers that has written its first row."""
        out = tmp_path / "rows.jsonl"
        command = [sys.executable, "-c", _AS_IN_A_TERMINAL, "scan", "--workers", "2", "--out", str(out)]
        process = subprocess.Popen(
            [*command, *[folder / "disk1.dd.bz2"] * 5000], stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            wait_until(lambda: process.poll() is not None or bool(out.exists() and out.stat().st_size), "the first row")
            assert process.poll() is None
            yield process
        finally:
            end_group(process)

    def test_workers_end_with_a_parent_that_is_killed(self, busy: subprocess.Popen[str]) -> None:
        def children() -> list[str]:
            return Path(f"/proc/{busy.pid}/task/{busy.pid}/children").read_text().split()

        # Two workers, and what multiprocessing keeps books with.
        wait_until(lambda: len(children()) == 3, "two workers")
        started = children()
        assert len(started) == 3
        busy.kill()
        busy.communicate(timeout=HANGS)
        wait_until(lambda: not any(map(_runs, started)), "no worker is there any more")

    def test_an_interrupt_leaves_the_rows_so_far(self, busy: subprocess.Popen[str], tmp_path: Path) -> None:
        process, out = busy, tmp_path / "rows.jsonl"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, err = process.communicate(timeout=HANGS)
        assert process.returncode == 130
        assert f"the rows written to {out} so far are whole; begin again with: vmvisor-image scan --force" in err
        assert err.count("\n") == 1
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert 0 < len(rows) < 5000
        assert all(row["ok"] for row in rows)

    def test_progress_on_a_terminal_only(self, pattern: str) -> None:
        primary, secondary = pty.openpty()
        command = [sys.executable, "-m", "vmvisor_image", "scan", pattern, "--workers", "2"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=secondary, start_new_session=True)
        os.close(secondary)
        shown = b""
        try:
            while piece := os.read(primary, 4096):
                shown += piece
        except OSError:  # how a terminal ends on Linux
            pass
        finally:
            os.close(primary)
            status = process.wait()
            end_group(process)
        assert status == BAD_INPUT
        assert b"scanning" in shown
