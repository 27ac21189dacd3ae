"""Forks and closes while others read: right bytes or a clear error, never a wait without end."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import zstandard

from tests.media import small_disk
from tests.support import HANGS, in_child, run
from vmvisor_image import ClosedError, Image, NotAFileSystem
from vmvisor_image.base.forking import ForkSafeLock, cached_property, restart_in_child
from vmvisor_image.bzip2.reader import Bzip2Reader
from vmvisor_image.streams.sources import BytesSource, FileObjectSource
from vmvisor_image.testing.forge import fat_volume

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    # What is tested here: from Python 3.12 on a fork beside threads warns.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@contextmanager
def held_by_another_thread(lock: ForkSafeLock | threading.Condition) -> Iterator[None]:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_lock_that_another_thread_holds_is_free_in_the_child() -> None:
    lock = ForkSafeLock()

    def work() -> bool:
        with lock, lock:
            return True

    with held_by_another_thread(lock):
        assert in_child(work)
    with lock:
        pass


def test_one_that_can_t_be_started_in_a_child_keeps_no_other_from_it() -> None:
    started = []

    class Startable:
        def __init__(self, *, fails: bool) -> None:
            self._fails = fails
            restart_in_child(self)

        def start_in_child(self) -> None:
            if self._fails:
                raise OSError("it was closed")
            started.append(self)

    kept = [Startable(fails=number % 2 == 0) for number in range(40)]
    assert in_child(lambda: len(started) == len(kept) // 2)


def test_partitions_found_on_an_image_that_was_closed_are_no_error_in_a_child() -> None:
    with Image.open(bytes(1 << 20)) as image:
        found = image.partitions.search()

    def work() -> bool:
        found.start_in_child()
        return True

    assert in_child(work)


def test_a_lock_that_the_forking_thread_holds_stays_held() -> None:
    lock = ForkSafeLock()

    def work() -> bool:
        taken: list[bool] = []
        other = threading.Thread(target=lambda: taken.append(lock._lock.acquire(blocking=False)))
        with lock:  # again, as it is re-entrant
            other.start()
            other.join()
        return taken == [False]

    with lock:
        assert in_child(work)


def test_only_one_thread_of_a_child_renews_a_lock() -> None:
    lock = ForkSafeLock()

    def work() -> bool:
        inside, most, barrier = 0, 0, threading.Barrier(8)

        def enter() -> None:
            nonlocal inside, most
            barrier.wait()
            for _ in range(200):
                with lock:
                    inside += 1
                    most = max(most, inside)
                    inside -= 1

        threads = [threading.Thread(target=enter) for _ in range(8)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        return most == 1

    with held_by_another_thread(lock):
        assert in_child(work)


def test_a_file_object_that_the_parent_moves_too_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"x" * 4096)
    with path.open("rb") as file:
        source = FileObjectSource(file)

        def work() -> bool:
            try:
                source.read_at(0, 10)
            except ClosedError as error:
                return "open the image there by its path" in str(error)
            return False

        assert in_child(work)
        assert source.read_at(0, 10) == b"x" * 10
    in_memory = FileObjectSource(io.BytesIO(b"x" * 4096))
    assert in_child(lambda: in_memory.read_at(0, 10) == b"x" * 10)


def test_a_child_waits_for_no_block_that_a_thread_of_the_parent_decodes() -> None:
    data = random.Random(1).randbytes(4_000_000)
    source = BytesSource(bz2.compress(data))
    with closing(Bzip2Reader(source, threads=2)) as reader:
        reader.prefetch(0, len(data))
        futures = [future for _, future in reader._walk._pending]
        wait(futures)
        # As a worker thread does when it sets the result.
        with held_by_another_thread(futures[0]._condition):
            assert in_child(lambda: reader.read_at(0, len(data)) == data)
        assert reader.read_at(0, len(data)) == data


@pytest.mark.parametrize("way", ["bare", "bz2", "gz", "xz", "zst", "qcow2"])
def test_children_read_right_while_threads_of_the_parent_read(tmp_path: Path, way: str) -> None:
    generator = random.Random(5)
    files = {f"{n % 5}/f{n:02}": generator.randbytes(generator.randrange(1, 90_000)) for n in range(40)}
    raw = fat_volume(files, sectors=32768, sectors_per_cluster=4)
    path = tmp_path / "image"
    raw.write_to(path)
    if way == "qcow2":
        run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", path, tmp_path / "image.qcow2")
        path = tmp_path / "image.qcow2"
    elif way != "bare":
        data = path.read_bytes()
        compress: dict[str, Callable[[bytes], bytes]] = {
            "bz2": bz2.compress,
            "gz": gzip.compress,
            "xz": lzma.compress,
            "zst": zstandard.ZstdCompressor().compress,
        }
        path.write_bytes(compress[way](data))
    with Image.open(path) as image:
        stop, read = threading.Event(), threading.Event()

        def read_on() -> int:
            count, own = 0, random.Random(threading.get_ident())
            while not stop.is_set():
                name = own.choice(list(files))
                assert image.partitions[1].files[name].read_bytes() == files[name]
                count += 1
                read.set()
            return count

        def work() -> bool:
            names = list(files)
            random.Random(os.getpid()).shuffle(names)
            return all(image.partitions[1].files[name].read_bytes() == files[name] for name in names)

        with ThreadPoolExecutor(4) as pool:
            readers = [pool.submit(read_on) for _ in range(4)]
            try:
                results = [in_child(work) for _ in range(12)]
                assert read.wait(HANGS)
            finally:
                stop.set()
            assert sum(reader.result() for reader in readers) > 0
        assert results == [True] * 12


@pytest.mark.parametrize("way", ["bare", "bz2", "gz"])
def test_closing_while_threads_read(tmp_path: Path, way: str) -> None:
    """Right bytes or a clear error, whoever comes first."""
    files = {f"f{n:02}": random.Random(n).randbytes(50_000) for n in range(20)}
    path = tmp_path / "image"
    fat_volume(files, sectors=32768, sectors_per_cluster=4).write_to(path)
    if way != "bare":
        path.write_bytes((bz2.compress if way == "bz2" else gzip.compress)(path.read_bytes()))
    ended = rounds = 0
    while rounds < 15 or (not ended and rounds < 1000):  # on a busy machine they may be done before it is closed
        rounds += 1
        image = Image.open(path)
        barrier = threading.Barrier(5)

        def read_all(image: Image = image, barrier: threading.Barrier = barrier) -> int:
            barrier.wait()
            try:
                for name, data in files.items():
                    assert image.partitions[1].files[name].read_bytes() == data
            except (ClosedError, NotAFileSystem):
                return 1
            return 0

        with ThreadPoolExecutor(4) as pool:
            readers = [pool.submit(read_all) for _ in range(4)]
            barrier.wait()
            image.close()
            ended += sum(reader.result() for reader in readers)
    assert ended > 0


def test_a_child_computes_what_a_thread_of_the_parent_is_computing() -> None:
    begun, done = threading.Event(), threading.Event()
    parent = os.getpid()

    class Record:
        @cached_property
        def value(self) -> int:
            if os.getpid() == parent:
                begun.set()
                done.wait()
            return 5

    record = Record()
    with ThreadPoolExecutor(1) as pool:
        computed = pool.submit(lambda: record.value)
        begun.wait()
        try:
            assert in_child(lambda: record.value == 5)
        finally:
            done.set()
        assert computed.result() == 5


@pytest.mark.parametrize("threads", [0, 1])
def test_a_fork_beside_threads_leaves_them_nothing_to_import(threads: int) -> None:
    program = f"""
import os, sys, threading
import vmvisor_image
done = threading.Event()
for _ in range({threads}):
    threading.Thread(target=done.wait).start()
lazy = {{"vmvisor_image.volumes.fat.entries", "vmvisor_image.archives.zip", "pyfatfs", "construct", "zstandard"}}
assert not lazy <= set(sys.modules)
child = os.fork()
if child == 0:
    os._exit(len(lazy - set(sys.modules)))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
done.set()
"""
    missing = int(run(sys.executable, "-W", "ignore", "-c", program))
    assert (missing == 0) == (threads > 0)  # a fork without threads imports nothing


def test_a_fork_beside_threads_leaves_nothing_to_import_for_what_readers_do(tmp_path: Path) -> None:
    """Of this library and of any other: whatever a reader imports late is there before the fork."""
    small_disk({"boot.cfg": b"build=1\n", "a.tgz": gzip.compress(bytes(1 << 10))}).write_to(tmp_path / "disk.dd")
    program = """
import os, sys, threading
import vmvisor_image
from vmvisor_image import Image, inspect, verify
done = threading.Event()
threading.Thread(target=done.wait).start()
child = os.fork()
if child == 0:
    before = set(sys.modules)
    inspect(sys.argv[1])
    verify(sys.argv[1])
    with Image.open(sys.argv[1]) as image:
        for partition in image.partitions:
            if partition.kind.startswith("fat"):
                for file in partition.files.values():
                    file.open_module()
                partition.files.extract(f"{sys.argv[2]}/{partition.number}")
    print("late:", *set(sys.modules) - before, flush=True)
    os._exit(0)
os.waitpid(child, 0)
done.set()
"""
    command = (sys.executable, "-W", "ignore", "-c", program, str(tmp_path / "disk.dd"), str(tmp_path / "out"))
    assert run(*command) == "late:\n"


def test_a_fork_waits_for_an_import_that_needs_a_logger(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import logging, time, __main__\n__main__.begun.set()\ntime.sleep(1)\nlog = logging.getLogger('slow')\n"
    )
    program = """
import os, threading
import vmvisor_image
begun = threading.Event()
thread = threading.Thread(target=__import__, args=["slow"])
thread.start()
begun.wait()
child = os.fork()
if child == 0:
    import slow
    os._exit(slow.log is None)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
thread.join()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], cwd=tmp_path, check=True, timeout=HANGS)
